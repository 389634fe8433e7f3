-- Opens chords, or amends what is known of those that are open.
-- KEYS  index, then for each chord: claim (.c), size (.s), entry (.r)
-- ARGV  1 to amend; then for each chord: group id, size ('' where it is not known), seconds to live (0 for ever), body,
--       seconds within which its sender speaks again ('' where all is sent)
-- include chord_watch.lua
local index, amend, now = KEYS[1], ARGV[1] == '1', clock()

-- Of chords that nobody looks at: no worker of ours is there that would.
local NOBODY = 2 * 86400

local function set_size(s, entry, size, life)
  if size == '' then return end
  if life > 0 then redis.call('SET', s, size, 'EX', life) else redis.call('SET', s, size) end
  redis.call('HSET', entry, 'sized', 1)
end

local function open(c, s, entry, group_id, size, life, body)
  redis.call('DEL', c, entry)
  watch(index, entry, group_id, now, life, body)
  set_size(s, entry, size, life)
end

-- Whether it is neither closed nor forgotten, and no failure of it is told. A size that is gone is that of one which a
-- Celery worker has told to have failed.
local function is_open(c, s, entry)
  local known = redis.call('HMGET', entry, 'opened', 'sized', 'verdict')
  if not known[1] or known[3] or redis.call('GET', c) == 'done' then return false end
  return not known[2] or redis.call('EXISTS', s) == 1
end

redis.call('ZREMRANGEBYSCORE', index, '-inf', now - NOBODY)
for n = 0, (#KEYS - 1) / 3 - 1 do
  local c, s, entry = unpack(KEYS, 3 * n + 2, 3 * n + 4)
  local group_id, size, life, body, sending = unpack(ARGV, 5 * n + 2, 5 * n + 6)
  local changed = true
  life = tonumber(life)
  if not amend then
    open(c, s, entry, group_id, size, life, body)
  elseif is_open(c, s, entry) then
    set_size(s, entry, size, life)
    redis.call('HDEL', entry, 'until')
    outlive(entry, life)
    redis.call('ZADD', index, now, group_id) -- all parts may be there already
  else
    changed = false
  end
  if changed and sending ~= '' then
    redis.call('HSET', entry, 'until', now + sending)
    redis.call('ZADD', index, now + sending, group_id)
  end
end
return 'OK'
