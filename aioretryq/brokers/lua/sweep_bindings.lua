-- Drops the tables of exchanges that nobody has refreshed in time; not those with queues that stay.
-- KEYS  deadlines of all tables
-- ARGV  what the keys of tables begin with, what those of the permanent sets begin with, how many at most
-- Returns how many deadlines have passed
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local passed = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])

for _, exchange in ipairs(passed) do
  redis.call('ZREM', KEYS[1], exchange)
  if redis.call('EXISTS', ARGV[2] .. exchange) == 0 then redis.call('DEL', ARGV[1] .. exchange) end
end
return #passed
