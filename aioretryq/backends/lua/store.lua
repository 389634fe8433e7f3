-- Stores result documents and announces each on the channel named like its key, but never over a final state.
-- KEYS  the results' keys
-- ARGV  for each result: time to live in milliseconds ('' for ever), document
-- Returns a text: 1 for each that was stored, else 0
local FINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}
local stored = {}

local function is_final(key)
  local head = redis.call('GETRANGE', key, 0, 63)
  if head == '' then return false end
  -- Celery and aioretryq write the status first; anything else has to be parsed.
  local status = string.match(head, '^%s*{%s*"status"%s*:%s*"(%u+)"')
  if not status then
    local readable, document = pcall(cjson.decode, redis.call('GET', key))
    status = readable and type(document) == 'table' and document.status
  end
  return FINAL[status] or false
end

-- A key of the wrong type must fail here, before anything was stored.
for i = 1, #KEYS do redis.call('STRLEN', KEYS[i]) end

for i, key in ipairs(KEYS) do
  local life, document = ARGV[2 * i - 1], ARGV[2 * i]
  if is_final(key) then
    stored[i] = 0
  else
    if life == '' then
      redis.call('SET', key, document)
    else
      redis.call('SET', key, document, 'PX', life)
    end
    redis.call('PUBLISH', key, document)
    stored[i] = 1
  end
end
return table.concat(stored)
