-- Stores result documents and announces each on the channel named like its key, but not over a final state.
-- KEYS  the results' keys
-- ARGV  for each result: time to live in milliseconds ('' for ever), document, the SHA-1 of a stored value that the
--       caller has read and knows may be replaced ('' where it has read none), and 0 if it may replace REVOKED
-- Returns a text: for each result 1 if it was stored, 0 if not, and 2 if it was not because only the caller can tell
--       whether what is stored is final: it is pickled, compressed, or the like
local FINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}
local stored = {}

-- '1' to store, else what to answer
local function may_store(key, judged, revoked_stays)
  local head = redis.call('GETRANGE', key, 0, 63)
  if head == '' then return '1' end
  -- Celery and aioretryq write the status first; anything else has to be parsed.
  local status = string.match(head, '^%s*{%s*"status"%s*:%s*"(%u+)"')
  if not status then
    local value = redis.call('GET', key)
    if judged ~= '' and redis.sha1hex(value) == judged then return '1' end
    local readable, document = pcall(cjson.decode, value)
    if not readable or type(document) ~= 'table' then return '2' end
    status = document.status
  end
  if status == 'REVOKED' and revoked_stays == '0' then return '1' end
  return FINAL[status] and '0' or '1'
end

-- A key of the wrong type must fail here, before anything was stored.
for i = 1, #KEYS do redis.call('STRLEN', KEYS[i]) end

for i, key in ipairs(KEYS) do
  local life, document, judged, revoked_stays = unpack(ARGV, 4 * i - 3, 4 * i)
  stored[i] = may_store(key, judged, revoked_stays)
  if stored[i] == '1' then
    if life == '' then
      redis.call('SET', key, document)
    else
      redis.call('SET', key, document, 'PX', life)
    end
    redis.call('PUBLISH', key, document)
  end
end
return table.concat(stored)
