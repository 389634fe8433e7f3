-- Makes parked messages ordinary ones, at the tails of their lists.
-- KEYS  schedule, then lists
-- ARGV  for each message: the schedule's member, number of its list, the message
-- Returns how many were still parked
local count = 0

-- A key of the wrong type must fail here, before anything was taken out.
redis.call('ZCARD', KEYS[1])
for i = 2, #KEYS do redis.call('LLEN', KEYS[i]) end

for i = 1, #ARGV, 3 do
  if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
    redis.call('LPUSH', KEYS[1 + ARGV[i + 1]], ARGV[i + 2])
    count = count + 1
  end
end
return count
