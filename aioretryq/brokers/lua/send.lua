-- Adds messages to lists, or parks them; those whose tag was sent within the last minute are skipped.
-- KEYS  sent, then the lists and schedules that messages go to
-- ARGV  the kinds of those keys ('l' or 'z' each), then for each message:
--       tag, number of its key, due ('' for a list), the message (for a schedule: its member)
-- Returns how many were added
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local added = 0

-- A key of the wrong type must fail here, before anything was added.
for i = 1, #ARGV[1] do
  redis.call(string.sub(ARGV[1], i, i) == 'l' and 'LLEN' or 'ZCARD', KEYS[1 + i])
end

for i = 2, #ARGV, 4 do
  local since = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not since or now - since > 60 then
    redis.call('ZADD', KEYS[1], now, ARGV[i])
    local key, due = KEYS[1 + ARGV[i + 1]], ARGV[i + 2]
    if due == '' then
      redis.call('LPUSH', key, ARGV[i + 3])
    else
      redis.call('ZADD', key, due, ARGV[i + 3])
    end
    added = added + 1
  end
end
-- Last, not first: a server out of memory refuses to add, but not in a script that began by removing.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 60)
redis.call('PEXPIRE', KEYS[1], 120000)
return added
