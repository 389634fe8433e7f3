-- Chords that somebody may have to rescue: `index` orders them by the second in which to look at them again, `entry`
-- keeps what is known of one (a hash): opened, life (seconds, 0 for ever), body; until: when its sender speaks again,
-- or is dead; sized: whether its size was told; told: how often it was told that it is overdue; margin: of life left, when
-- it was told so for that; verdict: the token of whoever tells that it has failed; sender: the last one of ours who had
-- the right to send the body.
local FIRST_LOOK, LONGEST, GRACE = 10, 120, 3600

local function clock()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

local function outlive(entry, life)
  if life > 0 then redis.call('EXPIRE', entry, life + GRACE) end
end

local function watch(index, entry, group_id, now, life, body)
  redis.call('HSET', entry, 'opened', now, 'life', life, 'body', body)
  outlive(entry, life)
  redis.call('ZADD', index, now + (life > 0 and math.min(FIRST_LOOK, life / 2) or FIRST_LOOK), group_id)
end

local function note_sender(entry, token)
  if redis.call('EXISTS', entry) == 1 then redis.call('HSET', entry, 'sender', token) end
end

-- How many parts are there, and how many there are altogether (false if nobody knows).
local function progress(ordered, j, t, s)
  local size = redis.call('GET', s)
  return redis.call(ordered and 'ZCARD' or 'LLEN', j), size and tonumber(size) + tonumber(redis.call('GET', t) or 0)
end

local function complete(ordered, j, t, s)
  local count, size = progress(ordered, j, t, s)
  return count == size
end
