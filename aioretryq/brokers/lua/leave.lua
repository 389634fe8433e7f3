-- Forgets a worker, and tells which of the queues nobody else serves.
-- KEYS  workers (member: name of the worker, what separates, queue; score: when it was last seen)
-- ARGV  lease, what separates, name of the worker, queues
-- Returns the numbers of the queues, counted from 1
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local served, lonely = {}, {}

for i = 4, #ARGV do redis.call('ZREM', KEYS[1], ARGV[3] .. ARGV[2] .. ARGV[i]) end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf')) do
  local _, last = string.find(member, ARGV[2], 1, true)
  if last then served[string.sub(member, last + 1)] = true end
end
for i = 4, #ARGV do
  if not served[ARGV[i]] then lonely[#lonely + 1] = i - 3 end
end
return lonely
