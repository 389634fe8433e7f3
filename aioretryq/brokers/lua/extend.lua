-- Starts leases anew. What is held for as long as that becomes an entry of unacked that kombu can read, also if it is
-- large (see claim.lua): a Celery worker restores it should all of ours be gone for good. Of many large ones that is for
-- some each time: they take 7 us a kilobyte, in which the server does nothing else.
-- KEYS  unacked, unacked_index, leases
-- ARGV  lease, lead of the index score, then tags
-- Returns a text: 1 for each tag that is still held, else 0
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local extended = {}
local bytes = 8388608 -- of large messages that this call completes

-- The lease counts, this is for a case of need only: a user who may not is not refused.
local function complete(tag)
  local large = KEYS[3] .. '.' .. tag
  local body = redis.pcall('LINDEX', large, 0)
  if type(body) ~= 'string' then return end -- it is already, and its entry is long: not to be looked at
  local entry = redis.call('HGET', KEYS[1], tag)
  if string.sub(entry, 1, 6) == '[null,' then
    redis.call('HSET', KEYS[1], tag, '[' .. body .. string.sub(entry, 6))
    if string.byte(body) == 123 then redis.call('ZADD', KEYS[2], now + ARGV[2], tag) end
  end
  redis.pcall('UNLINK', large)
  bytes = bytes - #body
end

-- Removes nothing. But a server out of memory refuses scripts that begin by adding, and leases must not end there.
redis.call('ZREM', KEYS[3], '')
for i = 3, #ARGV do
  local held = redis.call('HEXISTS', KEYS[1], ARGV[i])
  if held == 1 then
    if bytes > 0 and string.find(ARGV[i], ':large:', 1, true) then complete(ARGV[i]) end
    redis.call('ZADD', KEYS[3], now + ARGV[1], ARGV[i])
    redis.call('ZADD', KEYS[2], 'XX', now + ARGV[2], ARGV[i])
  end
  extended[#extended + 1] = held
end
return table.concat(extended)
