-- Adds a queue that goes away when nobody uses it to the table of an exchange, and postpones the end of both.
-- KEYS  table of the exchange, deadlines of all tables (unix milliseconds), deadlines of bindings
-- ARGV  member of the table, exchange, milliseconds that the table lives on at least, name of the binding among the
--       deadlines, milliseconds that the queue lives on
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('SADD', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], 'GT', string.format('%.0f', now + ARGV[3]), ARGV[2])
redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[5]), ARGV[4])
