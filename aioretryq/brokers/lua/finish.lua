-- Acknowledges messages and, for each whose receipt still holds, stores its result, sends what follows and keeps its
-- dead letter. A server out of memory refuses finishes with a result, and those that come together with them.
-- KEYS  unacked, unacked_index, leases, dead, dead index, finished, then the lists and schedules that messages go to,
--       then the keys of results in the order of their finishes, then the parcels of large results in the same order
-- ARGV  the kinds of the lists and schedules ('l' or 'z' each), how many parcels, number of this batch, how many batches
--       are answered, their numbers; then for each finish: tag, number of records, life of its result (- without one);
--       then the result if there is one: document ('' if it is in a parcel), revoked_stays (see store_result.lua); and
--       each record: number of its key, due ('' for a list), the message (for a schedule: its member); a record for key
--       0 is a dead letter: 0, id, content
-- Returns a text: 1 for each finish that was done, 0 for each whose lease was lost, and 2 where nothing was done for
-- only the caller can tell whether its result may be stored. It is kept under the number of the batch until a later
-- batch tells that it was read: a batch that comes again is answered as the first time.
-- Behind that, if all was done but to announce or to clean up, why not: the user may lack rights. That must not keep what
-- follows from being sent, so it comes last.
-- include store_result.lua
local unacked, done, held, stored, refusal = KEYS[1], {}, {}, {}, ''

local function leftover(command, ...)
  local outcome = redis.pcall(command, ...)
  if type(outcome) ~= 'table' or not outcome.err then return outcome end
  refusal = command .. ': ' .. outcome.err
end

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

local at, result, parcel = 5 + ARGV[4], 6 + #ARGV[1], #KEYS - ARGV[2]
local parcels = parcel + 1
-- Of those that have not become results.
local function drop_parcels()
  for i = parcels, #KEYS do leftover('UNLINK', KEYS[i]) end
end

local answer = redis.call('HGET', KEYS[6], ARGV[3])
-- A server out of memory refuses to add, but not in a script that began by removing: to acknowledge goes on there.
-- Results must not go past its limit by that. This adds nothing, and is refused before anything was done.
if not answer and #KEYS > result then redis.call('ZADD', KEYS[3], 'XX', 'GT', '-inf', '') end
for i = 5, at - 1 do redis.call('HDEL', KEYS[6], ARGV[i]) end
if answer then
  drop_parcels()
  return answer .. refusal
end
for i = parcels, #KEYS do
  -- They were put there a moment ago: the server has evicted one, or was flushed. Nothing is done yet.
  if redis.call('EXISTS', KEYS[i]) == 0 then return redis.error_reply('TRYAGAIN a result is gone before it was stored') end
end

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

local function take(tag)
  if redis.call('HDEL', unacked, tag) == 0 then return false end
  held[#held + 1] = tag
  return true
end

-- Takes the receipt and stores the result: neither without the other. Returns what to answer.
local function take_and_store(tag, key, life, document, revoked_stays, from)
  if store_first(key, life, document, from) then
    if take(tag) then
      stored[#stored + 1] = {key, document, from}
      return '1'
    end
    redis.call('DEL', key) -- which nobody has seen
    return '0'
  end
  if redis.call('HEXISTS', unacked, tag) == 0 then return '0' end
  local answered = replace(key, life, document, '', revoked_stays, from)
  if answered == '2' then return '2' end
  if answered == '1' then stored[#stored + 1] = {key, document, from} end
  take(tag) -- also where a final result is there already: that is as good
  return '1'
end

-- Whether somebody may hear what is published there. Not asked for small documents, and yes if that is not to be told.
-- Who listens to a replica is counted there; one that has just lost its connection is told of by the backlog, from which
-- it gets later what it missed.
local only_direct
local function heard(channel)
  if only_direct == nil then
    local state = redis.pcall('INFO', 'replication')
    local alone = type(state) == 'string' and string.find(state, 'connected_slaves:0', 1, true)
      and string.find(state, 'repl_backlog_active:0', 1, true)
    only_direct = alone and redis.pcall('PUBSUB', 'NUMPAT') == 0
  end
  return not only_direct or redis.pcall('PUBSUB', 'NUMSUB', channel)[2] ~= 0
end

local function announce(key, document, from)
  if from then document = heard(key) and leftover('GET', key) end
  if document then leftover('PUBLISH', key, document) end
end

while at <= #ARGV do
  local tag, life = ARGV[at], ARGV[at + 2]
  local first, answered = at + 3, nil
  if life == '-' then
    answered = take(tag) and '1' or '0'
  else
    result, first = result + 1, at + 5
    local document, from = ARGV[at + 3], nil
    if document == '' then
      parcel = parcel + 1
      from = KEYS[parcel]
    end
    answered = take_and_store(tag, KEYS[result], life, document, ARGV[at + 4], from)
  end
  local after = first + 3 * ARGV[at + 1]
  if answered == '1' then send(first, after - 1) end
  done[#done + 1] = answered
  at = after
end
for from = 1, #held, 1000 do -- a call takes no more arguments than Lua has room for
  local tags = {unpack(held, from, math.min(from + 999, #held))}
  redis.call('ZREM', KEYS[2], unpack(tags))
  redis.call('ZREM', KEYS[3], unpack(tags))
end
answer = table.concat(done)
redis.call('HSET', KEYS[6], ARGV[3], answer)
-- Six hours: after an outage as long, who acknowledged early must not take for lost what was done.
redis.call('PEXPIRE', KEYS[6], 21600000)

drop_parcels()
for _, tag in ipairs(held) do
  -- A large message: see claim.lua.
  if string.sub(tag, -8, -2) == ':large:' then leftover('UNLINK', KEYS[3] .. '.' .. tag) end
end
for _, result in ipairs(stored) do announce(unpack(result)) end
return answer .. refusal
