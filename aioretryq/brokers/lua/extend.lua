-- Starts leases anew. What is held for as long as that becomes an entry of unacked that kombu can read, also if it is
-- large (see claim.lua): a Celery worker restores it should all of ours be gone for good.
-- KEYS  unacked, unacked_index, leases
-- ARGV  lease, lead of the index score, then tags
-- Returns a text: 1 for each tag that is still held, else 0
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local extended = {}

local function complete(tag)
  local entry, large = redis.call('HGET', KEYS[1], tag), KEYS[3] .. '.' .. tag
  local body = string.sub(entry, 1, 6) == '[null,' and redis.call('LINDEX', large, 0)
  if not body then return end -- it is already
  redis.call('HSET', KEYS[1], tag, '[' .. body .. string.sub(entry, 6))
  redis.call('UNLINK', large)
  if string.byte(body) == 123 then redis.call('ZADD', KEYS[2], now + ARGV[2], tag) end
end

-- Removes nothing. But a server out of memory refuses scripts that begin by adding, and leases must not end there.
redis.call('ZREM', KEYS[3], '')
for i = 3, #ARGV do
  local held = redis.call('HEXISTS', KEYS[1], ARGV[i])
  if held == 1 then
    if string.find(ARGV[i], ':large:', 1, true) then complete(ARGV[i]) end
    redis.call('ZADD', KEYS[3], now + ARGV[1], ARGV[i])
    redis.call('ZADD', KEYS[2], 'XX', now + ARGV[2], ARGV[i])
  end
  extended[#extended + 1] = held
end
return table.concat(extended)
