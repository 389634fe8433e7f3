-- Puts claimed messages back to the front of their lists: the last one given is the next to be taken.
-- KEYS  unacked, unacked_index, leases, then lists
-- ARGV  '1' to leave leases alone that have not ended, then for each message: tag, number of its list, message
-- Returns how many were put back
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local count = 0

-- A key of the wrong type must fail here, before anything was taken out.
for i = 4, #KEYS do redis.call('LLEN', KEYS[i]) end

for i = 2, #ARGV, 3 do
  local tag = ARGV[i]
  local ends = ARGV[1] == '1' and redis.call('ZSCORE', KEYS[3], tag)
  if not (ends and tonumber(ends) > now) then
    redis.call('ZREM', KEYS[2], tag)
    redis.call('ZREM', KEYS[3], tag)
    if redis.call('HDEL', KEYS[1], tag) == 1 then
      redis.call('RPUSH', KEYS[3 + ARGV[i + 1]], ARGV[i + 2])
      count = count + 1
    end
  end
end
return count
