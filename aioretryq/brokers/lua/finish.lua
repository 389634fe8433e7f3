-- Acknowledges messages and, for each whose receipt still holds, sends what follows and keeps its dead letter.
-- KEYS  unacked, unacked_index, leases, dead, dead index, then the lists and schedules that messages go to
-- ARGV  the kinds of those keys ('l' or 'z' each), then for each finish: tag, number of records, and each record:
--       number of its key, due ('' for a list), the message (for a schedule: its member);
--       a record for key 0 is a dead letter
-- Returns a text: 1 for each finish that was done, 0 for each whose lease was lost
local time = redis.call('TIME')
local done = {}
local at = 2

-- A key of the wrong type must fail here, before anything was acknowledged.
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
for i = 1, #ARGV[1] do
  redis.call(string.sub(ARGV[1], i, i) == 'l' and 'LLEN' or 'ZCARD', KEYS[5 + i])
end

while at <= #ARGV do
  local tag, after = ARGV[at], at + 2 + 3 * ARGV[at + 1]
  local held = redis.call('HDEL', KEYS[1], tag)
  if held == 1 then
    redis.call('ZREM', KEYS[2], tag)
    redis.call('ZREM', KEYS[3], tag)
    for i = at + 2, after - 1, 3 do
      local key, due, message = KEYS[5 + ARGV[i]], ARGV[i + 1], ARGV[i + 2]
      if ARGV[i] == '0' then
        redis.call('HSET', KEYS[4], tag, message)
        -- Microseconds, and one more for each finish, keep the order within a batch.
        redis.call('ZADD', KEYS[5], time[1] * 1000000 + time[2] + #done, tag)
      elseif due == '' then
        redis.call('LPUSH', key, message)
      else
        redis.call('ZADD', key, due, message)
      end
    end
  end
  done[#done + 1] = held
  at = after
end
return table.concat(done)
