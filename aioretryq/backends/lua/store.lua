-- Stores result documents and announces them: see store_result.lua.
-- KEYS  the results' keys
-- ARGV  for each result: life, document, judged, revoked_stays
-- Returns a text: the answer for each result.
-- include store_result.lua
local stored = {}

-- A key of the wrong type must fail here, before anything was stored.
for i = 1, #KEYS do redis.call('STRLEN', KEYS[i]) end

for i, key in ipairs(KEYS) do
  stored[i] = store_result(key, unpack(ARGV, 4 * i - 3, 4 * i))
end
return table.concat(stored)
