-- Starts leases anew.
-- KEYS  unacked, unacked_index, leases
-- ARGV  lease, lead of the index score, then tags
-- Returns a text: 1 for each tag that is still held, else 0
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local extended = {}

-- Removes nothing. But a server out of memory refuses scripts that begin by adding, and leases must not end there.
redis.call('ZREM', KEYS[3], '')
for i = 3, #ARGV do
  local held = redis.call('HEXISTS', KEYS[1], ARGV[i])
  if held == 1 then
    redis.call('ZADD', KEYS[3], now + ARGV[1], ARGV[i])
    redis.call('ZADD', KEYS[2], 'XX', now + ARGV[2], ARGV[i])
  end
  extended[#extended + 1] = held
end
return table.concat(extended)
