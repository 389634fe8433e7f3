-- Acknowledges messages and, for each whose receipt still holds, stores its result, sends what follows and keeps its
-- dead letter. A server out of memory refuses finishes with a result, and those that come together with them.
-- KEYS  unacked, unacked_index, leases, dead, dead index, finished, then the lists and schedules that messages go to,
--       then the keys of results in the order of their finishes
-- ARGV  the kinds of the lists and schedules ('l' or 'z' each), number of this batch, how many batches are answered,
--       their numbers; then for each finish: tag, number of records, life of its result (- without one); then the
--       result if there is one: document, revoked_stays (see store_result.lua); and each record: number of its key, due
--       ('' for a list), the message (for a schedule: its member); a record for key 0 is a dead letter: 0, id, content
-- Returns a text: 1 for each finish that was done, 0 for each whose lease was lost, and 2 where nothing was done for
-- only the caller can tell whether its result may be stored. It is kept under the number of the batch until a later
-- batch tells that it was read: a batch that comes again is answered as the first time.
-- include store_result.lua
local unacked, done, held = KEYS[1], {}, {}

-- A key of the wrong type must fail here, before anything was acknowledged.
redis.call('HLEN', unacked)
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('HLEN', KEYS[6])
for i = 1, #ARGV[1] do
  redis.call(string.sub(ARGV[1], i, i) == 'l' and 'LLEN' or 'ZCARD', KEYS[6 + i])
end

local at, result = 4 + ARGV[3], 6 + #ARGV[1]
local answer = redis.call('HGET', KEYS[6], ARGV[2])
-- A server out of memory refuses to add, but not in a script that began by removing: to acknowledge goes on there.
-- Results must not go past its limit by that. This adds nothing, and is refused before anything was done.
if not answer and #KEYS > result then redis.call('ZADD', KEYS[3], 'XX', 'GT', '-inf', '') end
for i = 4, at - 1 do redis.call('HDEL', KEYS[6], ARGV[i]) end
if answer then return answer end

local function send(from, to)
  for i = from, to, 3 do
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

while at <= #ARGV do
  local tag, life = ARGV[at], ARGV[at + 2]
  local first, may = at + 3, '1'
  if life ~= '-' then
    result, first = result + 1, at + 5
    -- Asked before, for the result must not be stored without the receipt, nor the message go without its result.
    may = redis.call('HEXISTS', unacked, tag) == 1 and store_result(KEYS[result], life, ARGV[at + 3], '', ARGV[at + 4])
    may = may == '0' and '1' or may or '0' -- a final result that is there already is as good
  end
  if may == '1' then
    if redis.call('HDEL', unacked, tag) == 1 then
      held[#held + 1] = tag
      send(first, first + 3 * ARGV[at + 1] - 1)
    else
      may = '0'
    end
  end
  done[#done + 1] = may
  at = first + 3 * ARGV[at + 1]
end
for from = 1, #held, 1000 do -- a call takes no more arguments than Lua has room for
  local tags = {unpack(held, from, math.min(from + 999, #held))}
  redis.call('ZREM', KEYS[2], unpack(tags))
  redis.call('ZREM', KEYS[3], unpack(tags))
end
answer = table.concat(done)
redis.call('HSET', KEYS[6], ARGV[2], answer)
-- Six hours: after an outage as long, who acknowledged early must not take for lost what was done.
redis.call('PEXPIRE', KEYS[6], 21600000)
return answer
