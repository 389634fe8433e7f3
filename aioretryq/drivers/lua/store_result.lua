-- Stores a result document and announces it on the channel named like its key, but not over a final state.
-- life: milliseconds ('' for ever); judged: the SHA-1 of a stored value that the caller has read and knows may be
-- replaced ('' where it has read none); revoked_stays: '0' if it may replace REVOKED.
-- Returns 1 if it was stored, 0 if not, and 2 if it was not because only the caller can tell whether what is stored is
-- final: it is pickled, compressed, or the like.
local FINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}

-- '1' to store, else what to answer
local function may_replace(key, judged, revoked_stays)
  local head = redis.pcall('GETRANGE', key, 0, 63)
  if type(head) ~= 'string' then return '2' end -- not even a text
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

local function set(key, life, document, ...)
  if life == '' then return redis.call('SET', key, document, ...) end
  return redis.call('SET', key, document, 'PX', life, ...)
end

local function store_result(key, life, document, judged, revoked_stays)
  if not set(key, life, document, 'NX') then -- nearly always there is nothing yet
    local answer = may_replace(key, judged, revoked_stays)
    if answer ~= '1' then return answer end
    set(key, life, document)
  end
  redis.call('PUBLISH', key, document)
  return '1'
end
