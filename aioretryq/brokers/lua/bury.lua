-- Keeps dead letters; one whose id is there already stays as it is.
-- KEYS  dead, dead index
-- ARGV  id and content of each
redis.call('ZCARD', KEYS[2]) -- a key of the wrong type must fail before anything was added
for i = 1, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then redis.call('ZADD', KEYS[2], 0, ARGV[i]) end
end
