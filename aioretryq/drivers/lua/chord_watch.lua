-- Chords that somebody may have to rescue: `index` orders them by the second in which to look at them again, `entry`
-- keeps what is known of one (a hash): opened, opener (its token), body; until: when its sender speaks again, or is dead;
-- sized: whether its size was told; told: how often it was told that it is overdue; dies: when it is forgotten unless a
-- part returns, and life: the seconds it had left when that was noted; doomed: when it was to be forgotten as it was told
-- to expire; verdict: the token of whoever tells that it has failed; sender: the last one of ours who had the right to
-- send the body.
local FIRST_LOOK, LONGEST, GRACE, FOR_EVER = 10, 300, 3600, 30 * 86400

local function clock()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

-- life: seconds, 0 or less for ever
local function outlive(entry, life)
  redis.call('EXPIRE', entry, life > 0 and math.ceil(life) + GRACE or FOR_EVER)
end

local function note_life(entry, now, life)
  redis.call('HDEL', entry, 'doomed')
  if life > 0 then redis.call('HSET', entry, 'dies', now + life, 'life', life) end
  outlive(entry, life)
end

local function watch(index, entry, group_id, now, life, body)
  redis.call('HSET', entry, 'opened', now, 'body', body)
  note_life(entry, now, life)
  redis.call('ZADD', index, now + (life > 0 and math.min(FIRST_LOOK, life / 2) or FIRST_LOOK), group_id)
end

local function note_sender(entry, token)
  if redis.call('EXISTS', entry) == 1 then redis.call('HSET', entry, 'sender', token) end
end

-- Of a size as it is stored and the number of parts that were added, how many there are altogether; nil if nobody knows.
local function whole(size, added)
  size, added = tonumber(size or ''), tonumber(added or 0)
  return size and added and size + added
end

local function counted(ordered, j)
  return redis.call(ordered and 'ZCARD' or 'LLEN', j)
end

local function complete(ordered, j, t, s)
  return counted(ordered, j) == whole(redis.call('GET', s), redis.call('GET', t))
end

-- Seconds until it is forgotten; nil where nothing of it is there.
local function left_of(s, j)
  local left = redis.call('PTTL', s)
  if left == -2 then left = redis.call('PTTL', j) end
  if left == -1 then return math.huge end
  return left >= 0 and left / 1000 or nil
end
