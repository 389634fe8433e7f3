-- Acknowledges messages and, for each whose receipt still holds, sends what follows and keeps its dead letter.
-- KEYS  unacked, unacked_index, leases, dead, dead index, finished, then the lists and schedules that messages go to
-- ARGV  the kinds of those keys ('l' or 'z' each), number of this batch, how many batches are answered, their numbers;
--       then for each finish: tag, number of records, and each record: number of its key, due ('' for a list), the
--       message (for a schedule: its member); a record for key 0 is a dead letter: 0, id, content
-- Returns a text: 1 for each finish that was done, 0 for each whose lease was lost. It is kept under the number of the
-- batch until a later batch tells that it was read: a batch that comes again is answered as the first time.
local done = {}

-- A key of the wrong type must fail here, before anything was acknowledged.
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('HLEN', KEYS[6])
for i = 1, #ARGV[1] do
  redis.call(string.sub(ARGV[1], i, i) == 'l' and 'LLEN' or 'ZCARD', KEYS[6 + i])
end

local at = 4 + ARGV[3]
for i = 4, at - 1 do redis.call('HDEL', KEYS[6], ARGV[i]) end
local answer = redis.call('HGET', KEYS[6], ARGV[2])
if answer then return answer end

while at <= #ARGV do
  local tag, after = ARGV[at], at + 2 + 3 * ARGV[at + 1]
  local held = redis.call('HDEL', KEYS[1], tag)
  if held == 1 then
    redis.call('ZREM', KEYS[2], tag)
    redis.call('ZREM', KEYS[3], tag)
    for i = at + 2, after - 1, 3 do
      local key, due, message = KEYS[6 + ARGV[i]], ARGV[i + 1], ARGV[i + 2]
      if ARGV[i] == '0' then
        redis.call('HSETNX', KEYS[4], due, message)
        redis.call('ZADD', KEYS[5], 0, due)
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
answer = table.concat(done)
redis.call('HSET', KEYS[6], ARGV[2], answer)
-- Six hours: after an outage as long, who acknowledged early must not take for lost what was done.
redis.call('PEXPIRE', KEYS[6], 21600000)
return answer
