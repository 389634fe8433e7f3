-- Chords that somebody has to look after, and that nobody was told of within the patience.
-- KEYS  index
-- ARGV  before the group ids in the keys of chords, 1 where results are ordered, patience in seconds, how many to tell,
--       how many to look at
-- Returns for each: group id, body, why, how often it was told, how many parts are there, how many there are altogether
-- (-1 where nobody knows), its age in seconds
-- include chord_watch.lua
local index, prefix, ordered, now = KEYS[1], ARGV[1], ARGV[2] == '1', clock()
local patience, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local told = {}

local function margin_of(life)
  return math.min(math.max(life / 10, 3 * patience), life / 2, 3600)
end

-- What is known of it; nil if there is nothing to look after (any more). A claim that is done ends it for Celery's
-- workers too, which know nothing of the index.
local function read(group_id)
  local key = prefix .. group_id
  local j, t, s, d, c, entry = key .. '.j', key .. '.t', key .. '.s', key .. '.d', key .. '.c', key .. '.r'
  local known = redis.call('HMGET', entry, 'opened', 'life', 'until', 'verdict')
  local holder = redis.call('GET', c)
  if not known[1] or known[4] or holder == 'done' then return nil end
  local count, size = progress(ordered, j, t, s)
  if not size and not known[3] and count == 0 then return nil end
  local chord = {entry = entry, keys = {j, t, s, d}, count = count, size = size, left = redis.call('PTTL', s) / 1000}
  chord.opened, chord.life, chord.till = tonumber(known[1]), tonumber(known[2]), tonumber(known[3])
  chord.held = holder and math.max(redis.call('PTTL', c), 1) / 1000
  chord.bound = redis.call('SISMEMBER', d, 'sender') == 1
  return chord
end

local function why(chord)
  if chord.held or chord.bound then return nil end
  if chord.count == chord.size then return 'complete' end
  if chord.till and chord.till <= now then return 'unsent' end
  if chord.size and chord.left >= 0 and chord.left <= margin_of(chord.life) then return 'expired' end
end

-- Seconds until it may be overdue. That of Celery's workers who die nobody notes, so all are looked at now and then.
local function pause(chord)
  if chord.held then return chord.held end
  local found = math.min(math.max(patience, (now - chord.opened) / 4), LONGEST)
  if chord.till and chord.till > now then found = math.min(found, chord.till - now) end
  local left = chord.left - margin_of(chord.life)
  if chord.size and left > 0 then found = math.min(found, left) end
  return found
end

local function tell(group_id, chord, reason)
  local entry, margin = chord.entry, chord.life > 0 and margin_of(chord.life) or 3600
  local body, times = redis.call('HGET', entry, 'body'), redis.call('HINCRBY', entry, 'told', 1)
  -- Less and less often, for messages may wait for long; but it must not be forgotten before one is run.
  local next_time = math.max(patience, math.min(patience * 2 ^ math.min(times - 1, 4), margin / 2))
  if reason == 'expired' then redis.call('HSET', entry, 'margin', margin) end
  for _, key in ipairs(chord.keys) do
    local left = redis.call('PTTL', key) / 1000
    if left >= 0 and left < margin then redis.call('PEXPIRE', key, math.ceil(margin * 1000)) end
  end
  redis.call('ZADD', index, now + next_time, group_id)
  local age = string.format('%.3f', now - chord.opened)
  told[#told + 1] = {group_id, body, reason, times, chord.count, chord.size or -1, age}
end

for _, group_id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, ARGV[5])) do
  if #told == limit then break end
  local chord = read(group_id)
  local reason = chord and why(chord)
  if not chord then
    redis.call('ZREM', index, group_id)
  else
    outlive(chord.entry, chord.life)
    if reason and redis.call('HSTRLEN', chord.entry, 'body') > 0 then
      tell(group_id, chord, reason)
    else
      redis.call('ZADD', index, now + math.max(pause(chord), 0.001), group_id)
    end
  end
end
return told
