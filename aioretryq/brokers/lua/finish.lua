-- Acknowledges messages and, for each whose receipt still holds, stores its result, counts it in its chords, sends what
-- follows and keeps its dead letter. A server out of memory refuses finishes with a result or with parts of chords, and
-- those that come together with them.
-- KEYS  unacked, unacked_index, leases, dead, dead index, finished, then the lists and schedules that messages go to,
--       then the keys of chords (seven each, see count_parts.lua), then those of results in the order of their finishes, then the
--       parcels of large results in the same order
-- ARGV  the kinds of the lists and schedules ('l' or 'z' each), how many parcels, number of this batch, how many batches
--       are answered, their numbers; the number of chords, and if there are any: 1 where their results are ordered,
--       the name of their index, and of each the seconds that it is to live (0 for ever), and 1 if one of its parts may be
--       the first that tells the body; then for each finish: tag ('' without a message), number of records, life of its
--       result (- without one); then the result if there is one: document ('' if it is in a parcel), revoked_stays (see
--       store_result.lua); and each record: number of its key, due ('' for a list), the message (for a schedule: its
--       member); a record for key 0 is a dead letter: 0, id, content; the first ones may be chords that are closed with it: c and its number,
--       group id, token; then parts of chords: minus the number of the chord, who is counted, with
--       the place behind the last colon, what it returned
-- Returns a text: 1 for each finish that was done, 0 for each whose lease was lost, and 2 where nothing was done, for
-- only the caller can tell whether its result may be stored, or with its part a chord might be complete, which
-- count_parts.lua has to find out, or a chord that it closes is not that token's (any more). It is kept under the number of the batch until a later
-- batch tells that it was read: a batch that comes again is answered as the first time.
-- Behind that, if all was done but to announce or to clean up, why not: the user may lack rights. That must not keep what
-- follows from being sent, so it comes last.
-- include store_result.lua
-- include chord_parts.lua
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

local at = 5 + ARGV[4]
local chord_count, lists = tonumber(ARGV[at]), 6 + #ARGV[1]
local result, parcel = lists + 7 * chord_count, #KEYS - ARGV[2]
local parcels = parcel + 1
-- Of those that have not become results.
local function drop_parcels()
  for i = parcels, #KEYS do leftover('UNLINK', KEYS[i]) end
end

local answer = redis.call('HGET', KEYS[6], ARGV[3])
-- A server out of memory refuses to add, but not in a script that began by removing: to acknowledge goes on there.
-- Results must not go past its limit by that. This adds nothing, and is refused before anything was done.
if not answer and #KEYS > lists then redis.call('ZADD', KEYS[3], 'XX', 'GT', '-inf', '') end
for i = 5, at - 1 do redis.call('HDEL', KEYS[6], ARGV[i]) end
if answer then
  drop_parcels()
  return answer .. refusal
end
for i = parcels, #KEYS do
  -- They were put there a moment ago: the server has evicted one, or was flushed. Nothing is done yet.
  if redis.call('EXISTS', KEYS[i]) == 0 then return redis.error_reply('TRYAGAIN a result is gone before it was stored') end
end

at = at + 1
local ordered, chord_index, chords = ARGV[at] == '1', ARGV[at + 1], {}
if chord_count > 0 then
  for n = 1, chord_count do
    local keys = {unpack(KEYS, lists + 7 * n - 6, lists + 7 * n)}
    chords[n] = {keys = keys, life = tonumber(ARGV[at + 2 * n]), untold = ARGV[at + 2 * n + 1] == '1'}
  end
  at = at + 2 * chord_count + 2
end

-- How many parts may be counted here, so that the chord is not complete with them: none where anything is unusual.
local function look_at(n)
  local chord = chords[n]
  local j, t, s, d, _, c, entry = unpack(chord.keys)
  if chord.untold and redis.pcall('HEXISTS', entry, 'body') ~= 1 then return 0 end
  local count, size, added = redis.pcall(ordered and 'ZCARD' or 'LLEN', j), redis.pcall('GET', s), redis.pcall('GET', t)
  local counted, claim = redis.pcall('SCARD', d), redis.pcall('GET', c)
  for _, found in ipairs({count, size, added, counted, claim}) do
    if type(found) == 'table' then return 0 end
  end
  if claim == 'done' then return 0 end
  -- Its size may be told later.
  return size and size + (added or 0) - count - 1 or math.huge
end

-- Where the chords that are closed, with which these records begin, end; and whether all are their tokens'.
local function closes_until(from, to)
  local i, ours = from, true
  while chord_count > 0 and i < to do
    local n = string.match(ARGV[i], '^c(%d+)$')
    if not n then break end
    ours = ours and redis.pcall('GET', chords[tonumber(n)].keys[6]) == ARGV[i + 2]
    i = i + 3
  end
  return i, ours
end

local function mark_all_done(from, to)
  for i = from, to, 3 do mark_done(chords[tonumber(string.sub(ARGV[i], 2))].keys[6]) end
end

local function forget_all(from, to)
  for i = from, to, 3 do
    forget(leftover, chords[tonumber(string.sub(ARGV[i], 2))].keys, chord_index, ARGV[i + 1])
  end
end

-- Where the parts that these records begin with end.
local function parts_until(from, to)
  local i = from
  while chord_count > 0 and i < to and tonumber(ARGV[i]) < 0 do i = i + 3 end
  return i
end

-- Whether all these parts can be counted here.
local function countable(from, to)
  local needed = {}
  for i = from, to, 3 do
    local n = -ARGV[i]
    chords[n].room = chords[n].room or look_at(n)
    needed[n] = (needed[n] or 0) + 1
    if needed[n] > chords[n].room then return false end
  end
  return true
end

local function count(from, to)
  for i = from, to, 3 do
    local chord, member = chords[-ARGV[i]], ARGV[i + 1]
    local j, t, s, d, tree = unpack(chord.keys)
    if remember(ordered, j, d, member, string.match(member, '.*:(.*)$'), ARGV[i + 2]) then chord.room = chord.room - 1 end
    if not chord.kept then
      keep({j, t, s, d}, tree, chord.life)
      chord.kept = true
    end
  end
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
  if tag == '' then return true end
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

-- The same with parts of chords, and a result if there is a key. The receipt comes last: should the server refuse a step,
-- the message comes back.
local function take_and_count(tag, parts, rest, key, life, document, revoked_stays, from)
  if redis.call('HEXISTS', unacked, tag) == 0 then return '0' end
  if not countable(parts, rest - 1) then return '2' end
  if key then
    local first = store_first(key, life, document, from)
    local answered = first and '1' or replace(key, life, document, '', revoked_stays, from)
    if answered == '2' then return '2' end
    if answered == '1' then stored[#stored + 1] = {key, document, from} end
  end
  count(parts, rest - 1)
  take(tag)
  return '1'
end

while at <= #ARGV do
  local tag, life, first = ARGV[at], ARGV[at + 2], at + 3
  local key, document, revoked_stays, from
  if life ~= '-' then
    result, first = result + 1, at + 5
    key, document, revoked_stays = KEYS[result], ARGV[at + 3], ARGV[at + 4]
    if document == '' then
      parcel = parcel + 1
      from = KEYS[parcel]
    end
  end
  local after = first + 3 * ARGV[at + 1]
  local parts, ours = closes_until(first, after)
  local rest, answered = parts_until(parts, after), nil
  if parts > first then
    -- Of those that are closed nothing else is to be done; the receipt comes last, as in `take_and_count`.
    answered = tag ~= '' and redis.call('HEXISTS', unacked, tag) == 0 and '0' or ours and '1' or '2'
    if answered == '1' then
      mark_all_done(first, parts - 1)
      take(tag)
    end
  elseif rest > first then
    answered = take_and_count(tag, first, rest, key, life, document, revoked_stays, from)
  elseif key then
    answered = take_and_store(tag, key, life, document, revoked_stays, from)
  else
    answered = take(tag) and '1' or '0'
  end
  if answered == '1' then
    send(rest, after - 1)
    forget_all(first, parts - 1)
  end
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
