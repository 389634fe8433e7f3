-- Deletes dead letters: those with ids less than a bound, and the oldest beyond a number.
-- KEYS  dead, dead index
-- ARGV  how many to keep, the bound, how many to delete at most
-- Returns how many were deleted
local limit = tonumber(ARGV[3])
local ids = redis.call('ZRANGEBYLEX', KEYS[2], '-', '(' .. ARGV[2], 'LIMIT', 0, limit)
local excess = math.min(redis.call('ZCARD', KEYS[2]) - ARGV[1], limit)
-- Both are the oldest: the longer list holds the other.
if excess > #ids then ids = redis.call('ZRANGE', KEYS[2], 0, excess - 1) end
redis.call('HLEN', KEYS[1]) -- a key of the wrong type must fail before anything was deleted
for _, id in ipairs(ids) do
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[1], id)
end
return #ids
