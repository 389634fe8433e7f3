-- Stores a result document and announces it on the channel named like its key, but not over a final state.
-- life: milliseconds ('' for ever); judged: the SHA-1 of a stored value that the caller has read and knows may be
-- replaced ('' where it has read none); revoked_stays: '0' if it may replace REVOKED; parcel: nil, or the key where the
-- document was put before, because it is large (Lua would take 1.4 us for each kilobyte).
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

-- As `set`, of a document that lies under a key of its own, the parcel: that becomes the result's.
local function move(key, life, parcel, command)
  if redis.call(command, parcel, key) == 0 then return false end
  if life == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, life) end
  return true
end

-- The first result under that key, as it nearly always is; false if there is something already.
local function store_first(key, life, document, parcel)
  if parcel then return move(key, life, parcel, 'RENAMENX') end
  return set(key, life, document, 'NX')
end

-- Over what is there already; without announcing it.
local function replace(key, life, document, judged, revoked_stays, parcel)
  local answer = may_replace(key, judged, revoked_stays)
  if answer ~= '1' then return answer end
  if parcel then move(key, life, parcel, 'RENAME') else set(key, life, document) end
  return '1'
end

local function store_result(key, life, document, judged, revoked_stays)
  local answer = store_first(key, life, document) and '1' or replace(key, life, document, judged, revoked_stays)
  if answer == '1' then redis.call('PUBLISH', key, document) end
  return answer
end
