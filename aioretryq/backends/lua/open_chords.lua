-- Opens chords, or amends what is known of those that are open.
-- KEYS  index, then for each chord: results (.j), parts added (.t), size (.s), who was counted (.d), tree of the header,
--       claim (.c), entry (.r)
-- ARGV  1 to amend; before the group ids in the keys of chords; then for each chord: group id, size ('' where it is not
--       known), seconds to live (0 for ever), body, seconds within which its sender speaks again ('' where all is sent),
--       token of whoever opens it (or '')
-- Returns a text: 1 for each that was changed, else 0
-- include chord_watch.lua
local index, amend, now = KEYS[1], ARGV[1] == '1', clock()

-- Nobody has looked at these for a day: no worker of ours is there that would drop those that are gone.
local function clean(number)
  for _, group_id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now - 86400, 'LIMIT', 0, number)) do
    if redis.call('EXISTS', ARGV[2] .. group_id .. '.r') == 1 then
      redis.call('ZADD', index, now, group_id)
    else
      redis.call('ZREM', index, group_id)
    end
  end
end

local function set_size(s, entry, size, life)
  if size == '' then return end
  if life > 0 then redis.call('SET', s, size, 'EX', life) else redis.call('SET', s, size) end
  redis.call('HSET', entry, 'sized', 1)
end

-- A size that is gone is that of one which a Celery worker has told to have failed, or it has expired.
local function has_size(s, sized)
  return not sized or redis.call('EXISTS', s) == 1
end

local function open(keys, group_id, size, life, body, token)
  local j, t, s, d, _, c, entry = unpack(keys)
  local known = redis.call('HMGET', entry, 'opener', 'verdict')
  if known[2] or redis.call('GET', c) == 'done' then
    if token ~= '' and known[1] == token then return false end
    redis.call('DEL', j, t, s, d, c, entry)
  else
    redis.call('HDEL', entry, 'until', 'sized', 'told')
  end
  watch(index, entry, group_id, now, life, body)
  redis.call('HSET', entry, 'opener', token)
  set_size(s, entry, size, life)
  return true
end

-- Not if it is closed or forgotten, or somebody tells that it has failed.
local function change(keys, group_id, size, life)
  local _, _, s, _, _, c, entry = unpack(keys)
  local known = redis.call('HMGET', entry, 'opened', 'sized', 'verdict')
  if not known[1] or known[3] or redis.call('GET', c) == 'done' or not has_size(s, known[2]) then return false end
  set_size(s, entry, size, life)
  redis.call('HDEL', entry, 'until')
  note_life(entry, now, life)
  redis.call('ZADD', index, now, group_id) -- all parts may be there already
  return true
end

local answers = {}
clean(10 * (#KEYS - 1) / 7)
for n = 0, (#KEYS - 1) / 7 - 1 do
  local keys = {unpack(KEYS, 7 * n + 2, 7 * n + 8)}
  local group_id, size, life, body, sending, token = unpack(ARGV, 6 * n + 3, 6 * n + 8)
  local changed
  if amend then
    changed = change(keys, group_id, size, tonumber(life))
  else
    changed = open(keys, group_id, size, tonumber(life), body, token)
  end
  if changed and sending ~= '' then
    redis.call('HSET', keys[7], 'until', now + sending)
    redis.call('ZADD', index, now + sending, group_id)
  end
  answers[#answers + 1] = changed and 1 or 0
end
return table.concat(answers)
