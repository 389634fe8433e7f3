-- Chords that somebody has to look after, and that nobody was told of within the patience.
-- KEYS  index
-- ARGV  before the group ids in the keys of chords, 1 where results are ordered, patience in seconds, how many to tell,
--       how many to look at, bytes of bodies that are enough
-- Returns 1 if there are others to look at, then for each: group id, body, why, how often it was told, how many parts are
-- there, how many there are altogether (-1 where nobody knows), its age in seconds, what is wrong with its keys (or '')
--
-- What is looked at is nearly always a chord of which parts are missing: for such the fewest commands.
-- include chord_watch.lua
local index, prefix, ordered, now = KEYS[1], ARGV[1], ARGV[2] == '1', clock()
local patience, limit, looked_at, enough = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local told, bytes = {0}, 0

local function margin_of(life)
  return math.min(math.max(life / 10, 3 * patience), life / 2, 3600)
end

-- Seconds until it is told to expire. Every part that is counted gives a chord another life, also one that a Celery worker
-- counts: how long, is what is left of it when that is seen first.
local function observe(entry, left, dies, life)
  if not left then return math.huge end
  if left == math.huge then
    outlive(entry, 0)
    return left
  elseif not dies or math.abs(now + left - dies) > 1 then
    life = left
    note_life(entry, now, life)
  end
  return left - margin_of(tonumber(life))
end

-- Why it is overdue; nil if it is not, or somebody has the right to send its body.
local function reason_of(chord)
  local why = chord.spare <= 0 and 'expired' or nil
  if chord.count == chord.size then
    why = 'complete'
  elseif chord.till and chord.till <= now then
    why = 'unsent'
  end
  -- Whoever comes back has to, before it expires.
  if why and why ~= 'expired' and redis.call('SISMEMBER', chord.key .. '.d', 'sender') == 1 then
    why = chord.spare <= 0 and 'expired' or nil
  end
  return why and redis.call('HSTRLEN', chord.entry, 'body') > 0 and why or nil
end

local function next_telling(times)
  return patience * 2 ^ math.min(times - 1, 4)
end

local function tell(group_id, chord, why)
  local entry = chord.entry
  local body, times = redis.call('HGET', entry, 'body'), redis.call('HINCRBY', entry, 'told', 1)
  -- What is told now has been told again twice before it is forgotten.
  local kept = 3 * next_telling(times)
  if why == 'expired' then kept = math.max(kept, chord.left - chord.spare, chord.left) end
  for _, kind in ipairs({'.j', '.t', '.s', '.d', ''}) do
    local left = redis.call('PTTL', chord.key .. kind) / 1000
    if left >= 0 and left < kept then redis.call('PEXPIRE', chord.key .. kind, math.ceil(kept * 1000)) end
  end
  if chord.left and chord.left < kept then
    redis.call('HSET', entry, 'dies', now + kept)
    outlive(entry, kept)
  end
  if why == 'expired' then redis.call('HSET', entry, 'doomed', now + kept) end
  bytes = bytes + #body
  local age = string.format('%.3f', now - chord.opened)
  local size = whole(redis.call('GET', chord.key .. '.s'), redis.call('GET', chord.key .. '.t')) or -1
  told[#told + 1] = {group_id, body, why, times, chord.count, size, age, ''}
  return now + next_telling(times)
end

-- When to look at one again of which parts are missing. Of Celery's workers nobody notes who dies, so all are looked at
-- now and then.
local function next_look(chord)
  local found = math.min(math.max(patience, (now - chord.opened) / 4), LONGEST, math.max(chord.spare, 0.1))
  if chord.till and chord.till > now then found = math.min(found, chord.till - now) end
  return now + found
end

-- Returns when to look at it again; nil if there is nothing to look after (any more).
local function look(group_id)
  local key = prefix .. group_id
  local s, j, entry = key .. '.s', key .. '.j', key .. '.r'
  local known, size = redis.call('HMGET', entry, 'opened', 'until', 'dies', 'life'), redis.call('GET', s)
  local count = counted(ordered, j)
  if not known[1] then return nil end
  -- Closed by a Celery worker, which knows nothing of the index.
  if count == 0 and not size and not known[2] then
    redis.call('DEL', entry)
    return nil
  end
  local chord = {entry = entry, key = key, count = count, size = tonumber(size or '')}
  if chord.size and count >= chord.size then chord.size = whole(size, redis.call('GET', key .. '.t')) end
  chord.opened, chord.till = known[1], tonumber(known[2] or '')
  chord.left = left_of(s, j)
  chord.spare = observe(entry, chord.left, known[3], known[4])
  local why = reason_of(chord)
  if not why then return next_look(chord) end
  local holder = redis.call('GET', key .. '.c')
  if holder == 'done' then
    redis.call('DEL', entry)
    return nil
  elseif holder then
    return now + math.max(redis.call('PTTL', key .. '.c'), 100) / 1000
  end
  return tell(group_id, chord, why)
end

-- Its keys are not what they should be: others are looked after all the same. Told once.
local function broken(group_id, problem)
  local text = type(problem) == 'table' and problem.err or tostring(problem)
  local times = redis.pcall('HINCRBY', prefix .. group_id .. '.r', 'told', 1)
  local ours = type(times) == 'number'
  if not ours or times == 1 then told[#told + 1] = {group_id, '', 'broken', 1, 0, -1, '0', text} end
  return ours and now + LONGEST or nil
end

local ids = redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, looked_at)
local again, gone = {}, {}
for _, group_id in ipairs(ids) do
  if #told > limit or bytes > enough then break end
  local readable, moment = pcall(look, group_id)
  if not readable then moment = broken(group_id, moment) end
  if moment then
    again[#again + 1] = moment
    again[#again + 1] = group_id
  else
    gone[#gone + 1] = group_id
  end
end
if #again > 0 then redis.call('ZADD', index, unpack(again)) end
if #gone > 0 then redis.call('ZREM', index, unpack(gone)) end
if #ids == looked_at then told[1] = 1 end
return told
