-- Parts of chords, as Celery's workers count them with the same keys.
-- ordered: whether results are a sorted set, else they are a list; member: who was counted, task id and place.

-- Whether it was new.
local function remember(ordered, j, d, member, index, result)
  if redis.call('SISMEMBER', d, member) == 1 then return false end
  if ordered then
    redis.call('ZADD', j, index, result)
  else
    redis.call('RPUSH', j, result)
  end
  redis.call('SADD', d, member)
  return true
end

local function keep(keys, tree, life)
  if life <= 0 then return end
  for _, key in ipairs(keys) do redis.call('EXPIRE', key, life) end
  local left = redis.call('TTL', tree)
  if left >= 0 and left < life then redis.call('EXPIRE', tree, life) end
end
