-- Adds messages to lists, or parks them, each once, whoever sends it again; see redis_sending.py
-- KEYS  sent, the lists and schedules that messages go to, then records of senders
-- ARGV  the kinds of those lists and schedules ('l' or 'z' each); for each message: tag, number of its key, due ('' for a
--       list), the message (or member), and where it was sent before in a batch that was not answered: number of its
--       record among the keys, number of the batch ('' and '' else)
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local sent = KEYS[1]

local function was_sent(tag)
  local since = redis.call('ZSCORE', sent, tag)
  return since and now - since <= 60
end

-- Whether that batch was carried out. If not, it never will be.
local function was_done(record, number)
  if redis.call('GET', record) == number then return true end
  redis.call('SET', record, 'void', 'PX', 180000)
  return false
end

-- A key of the wrong type must fail here, before anything was added.
for i = 1, #ARGV[1] do
  redis.call(string.sub(ARGV[1], i, i) == 'l' and 'LLEN' or 'ZCARD', KEYS[1 + i])
end

for i = 2, #ARGV, 6 do
  local tag, record = ARGV[i], ARGV[i + 4]
  if not was_sent(tag) and (record == '' or not was_done(KEYS[1 + record], ARGV[i + 5])) then
    redis.call('ZADD', sent, now, tag)
    local key, due = KEYS[1 + ARGV[i + 1]], ARGV[i + 2]
    if due == '' then
      redis.call('LPUSH', key, ARGV[i + 3])
    else
      redis.call('ZADD', key, due, ARGV[i + 3])
    end
  end
end
-- Last, not first: a server out of memory refuses to add, but not in a script that began by removing.
redis.call('ZREMRANGEBYSCORE', sent, '-inf', now - 60)
redis.call('PEXPIRE', sent, 120000)
