-- Notes ids as revoked, under rising numbers by which every worker reads only what is new to it.
-- KEYS  revocations (id -> number), revoked (id -> when it ends)
-- ARGV  time to live in seconds, then ids
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local life = math.ceil(ARGV[1] * 1000)

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end

-- The clock, not a counter: numbers must go on rising for a worker that outlives a flushed server.
local number = time[1] * 1000000 + time[2]
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] and tonumber(last[2]) >= number then number = last[2] + 1 end
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], number, ARGV[i])
  redis.call('ZADD', KEYS[2], 'GT', now + ARGV[1], ARGV[i])
  number = number + 1
end

if redis.call('PTTL', KEYS[2]) < life then
  redis.call('PEXPIRE', KEYS[1], life)
  redis.call('PEXPIRE', KEYS[2], life)
end
