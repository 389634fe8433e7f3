-- Adds messages to lists, or parks them, each once; see redis_sending.py
-- KEYS  sent, then the lists and schedules that messages go to
-- ARGV  the kinds of those keys ('l' or 'z' each); the name of the batch ('' without one), how many groups it has, and
--       each group: number of its key, how many values, and the values: messages of a list, or due and member in turn
--       for a schedule. Then each message with a memory of its own: tag, name of the batch in which it was sent before
--       and that was not answered (''), number of its key, due ('' for a list), the message (or member)
-- What has a name or tag that was carried out within the last minute is skipped.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local sent = KEYS[1]

local function known(name)
  local since = redis.call('ZSCORE', sent, name)
  return since and now - since <= 60
end

-- A key of the wrong type must fail here, before anything was added.
for i = 1, #ARGV[1] do
  redis.call(string.sub(ARGV[1], i, i) == 'l' and 'LLEN' or 'ZCARD', KEYS[1 + i])
end

local at = 4
if ARGV[2] ~= '' then
  local new = not (known(ARGV[2]) or known('void ' .. ARGV[2]))
  if new then redis.call('ZADD', sent, now, ARGV[2]) end
  for group = 1, ARGV[3] do
    local number, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local add = string.sub(ARGV[1], number, number) == 'l' and 'LPUSH' or 'ZADD'
    local last = at + 1 + count
    if new then
      for i = at + 2, last, 1000 do  -- more do not fit on Lua's stack
        redis.call(add, KEYS[1 + number], unpack(ARGV, i, math.min(i + 999, last)))
      end
    end
    at = last + 1
  end
end

for i = at, #ARGV, 5 do
  local tag, batch = ARGV[i], ARGV[i + 1]
  if not known(tag) and (batch == '' or not known(batch)) then
    if batch ~= '' then redis.call('ZADD', sent, now, 'void ' .. batch) end
    redis.call('ZADD', sent, now, tag)
    local key, due = KEYS[1 + ARGV[i + 2]], ARGV[i + 3]
    if due == '' then
      redis.call('LPUSH', key, ARGV[i + 4])
    else
      redis.call('ZADD', key, due, ARGV[i + 4])
    end
  end
end
-- Last, not first: a server out of memory refuses to add, but not in a script that began by removing.
redis.call('ZREMRANGEBYSCORE', sent, '-inf', now - 60)
redis.call('PEXPIRE', sent, 120000)
