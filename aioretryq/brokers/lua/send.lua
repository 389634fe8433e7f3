-- Adds new messages to lists, or parks them; see redis_sending.py
-- KEYS  the sender's record, then the lists and schedules that messages go to
-- ARGV  the number of this batch; the kinds of those keys ('l' or 'z' each); then for each key how many values it gets,
--       and the values: messages of a list, or due and member in turn for a schedule
local kinds = ARGV[2]
-- A key of the wrong type must fail here, before anything was added.
for i = 1, #kinds do
  redis.call(string.sub(kinds, i, i) == 'l' and 'LLEN' or 'ZCARD', KEYS[1 + i])
end
-- Fails where the record is void. It has the number of the last batch: to count on is a third of the work of writing.
if redis.call('INCR', KEYS[1]) ~= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', 180000)
end
local at = 3
for i = 1, #kinds do
  local add, last = string.sub(kinds, i, i) == 'l' and 'LPUSH' or 'ZADD', at + ARGV[at]
  for first = at + 1, last, 1000 do  -- more do not fit on Lua's stack
    redis.call(add, KEYS[1 + i], unpack(ARGV, first, math.min(first + 999, last)))
  end
  at = last + 1
end
