-- Drops a queue and its binding, if nobody has used it until its deadline.
-- KEYS  deadlines of bindings, table of the exchange, then what the queue lies in
-- ARGV  name of the binding among the deadlines, member of the table
local time = redis.call('TIME')
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) > time[1] * 1000 + math.floor(time[2] / 1000) then return 0 end

redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[2], ARGV[2])
redis.call('DEL', unpack(KEYS, 3))
return 1
