-- Parts of chords, as Celery's workers count them with the same keys.
-- ordered: whether results are a sorted set, else they are a list; member: who was counted, task id and place.

-- Seconds for which a closed chord is not begun anew by a part that comes late; and one that failed before all parts had
-- returned: the others may wait in a queue for long.
local DONE, FAILED = 300, 86400

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

-- Its body was sent, or was told that it has failed: nobody else is to do so, of whatever kind.
local function mark_done(c)
  redis.call('SET', c, 'done', 'EX', DONE)
end

-- Of a chord that is done, all but that, and who opened it: the same does not open it again.
local function forget(call, keys, index, group_id)
  local j, t, s, d, _, c, entry = unpack(keys)
  local known = call('HMGET', entry, 'opener', 'verdict') or {}
  local life = known[2] and FAILED or DONE
  call('DEL', j, t, s, d, entry)
  call('ZREM', index, group_id)
  if known[2] then call('EXPIRE', c, life) end
  if known[1] and known[1] ~= '' then
    call('HSET', entry, 'opener', known[1])
    call('EXPIRE', entry, life)
  end
end
