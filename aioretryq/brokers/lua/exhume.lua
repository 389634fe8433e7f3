-- Deletes dead letters, each together with the sending of its message.
-- KEYS  dead, dead index, finished, then the lists and schedules that messages go to
-- ARGV  the kinds of those keys ('l' or 'z' each), number of this batch, how many batches are answered, their numbers;
--       then for each: id, number of its key (0: no message), due ('' for a list), the message
-- Returns a text: 1 for each that was there, else 0; see finish.lua for what becomes of a repeated batch
local done = {}

redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('HLEN', KEYS[3])
for i = 1, #ARGV[1] do
  redis.call(string.sub(ARGV[1], i, i) == 'l' and 'LLEN' or 'ZCARD', KEYS[3 + i])
end

local first = 4 + ARGV[3]
for i = 4, first - 1 do redis.call('HDEL', KEYS[3], ARGV[i]) end
local answer = redis.call('HGET', KEYS[3], ARGV[2])
if answer then return answer end

for i = first, #ARGV, 4 do
  local there = redis.call('HDEL', KEYS[1], ARGV[i])
  if there == 1 then
    redis.call('ZREM', KEYS[2], ARGV[i])
    local key, due = KEYS[3 + ARGV[i + 1]], ARGV[i + 2]
    if ARGV[i + 1] ~= '0' then
      if due == '' then
        redis.call('LPUSH', key, ARGV[i + 3])
      else
        redis.call('ZADD', key, due, ARGV[i + 3])
      end
    end
  end
  done[#done + 1] = there
end
answer = table.concat(done)
redis.call('HSET', KEYS[3], ARGV[2], answer)
redis.call('PEXPIRE', KEYS[3], 21600000)
return answer
