-- Remembers what parts of chords returned, each once, and gives the right to send the body of those that are complete,
-- or of those that are to be rescued.
-- KEYS  index (see chord_watch.lua), then for each part: results (.j), parts added (.t), size (.s), who was counted
--       (.d), tree of the header, claim (.c), entry (.r)
-- ARGV  1 where results are ordered (a sorted set, else a list); then for each part: group id, task id, what it
--       returned, index or '+inf', seconds to live (0 for ever), milliseconds of a claim, token, 1 if the message comes back when
--       its worker dies, body (or ''), why it is to be rescued ('' for a part)
-- Returns a text: 1 for each part with which the body is to be sent, else 0
--
-- All but the notes about senders, and the entries, is also what Celery's workers do with these keys.
-- include chord_parts.lua
-- include chord_watch.lua
local ordered, index, now = ARGV[1] == '1', KEYS[1], clock()

-- Whether the token has the claim from now on. A sender whose message comes back is waited for by all parts that were
-- counted before it died: its body may have been sent already.
local function claim(c, d, entry, token, life, new, returns)
  local holder, mine = redis.call('GET', c), 'sender:' .. token
  if holder and holder ~= token then return false end
  if not holder and not new and redis.call('SISMEMBER', d, 'sender') == 1 and redis.call('SISMEMBER', d, mine) == 0 then
    return false
  end
  redis.call('SET', c, token, 'PX', life)
  note_sender(entry, token)
  if returns == '1' then redis.call('SADD', d, 'sender', mine) end
  return true
end

-- Whether it is overdue still: nobody has spoken for it since it was told.
local function is_overdue(why, j, t, s, d, entry)
  local till, doomed = unpack(redis.call('HMGET', entry, 'until', 'doomed'))
  if why == 'unsent' then
    if complete(ordered, j, t, s) or redis.call('SISMEMBER', d, 'sender') == 1 then return false end
    return till and tonumber(till) <= now
  end
  local left = left_of(s, j)
  return left and doomed and math.abs(now + left - doomed) < 1
end

-- Whether the token may tell that it has failed. Without its size no part completes it any more.
local function condemn(why, group_id, keys, token, life)
  local j, t, s, d, _, c, entry = unpack(keys)
  local holder, verdict = redis.call('GET', c), redis.call('HGET', entry, 'verdict')
  if holder and holder ~= token or verdict and verdict ~= token then return false end
  if not verdict then
    if not is_overdue(why, j, t, s, d, entry) then return false end
    redis.call('HSET', entry, 'verdict', token)
    redis.call('EXPIRE', entry, FAILED)
    redis.call('ZREM', index, group_id)
    redis.call('DEL', s)
  end
  redis.call('SET', c, token, 'PX', life)
  return true
end

local function count(keys, group_id, id, result, position, life, claimed, token, returns, body)
  local j, t, s, d, tree, c, entry = unpack(keys)
  local new = remember(ordered, j, d, id .. ':' .. position, position, result)
  keep({j, t, s, d}, tree, life)
  if life > 0 and life < 2 * LONGEST then redis.call('ZADD', index, 'XX', 'LT', now + life / 2, group_id) end
  if body ~= '' and redis.call('HSTRLEN', entry, 'body') == 0 then watch(index, entry, group_id, now, life, body) end
  if not complete(ordered, j, t, s) or not claim(c, d, entry, token, claimed, new, returns) then return false end
  keep({d}, tree, life)
  -- Its message does not come back: somebody has to look what has become of it.
  if returns ~= '1' then redis.call('ZADD', index, 'XX', now + claimed / 1000, group_id) end
  return true
end

local function rescue(keys, group_id, why, life, claimed, token, returns)
  local j, t, s, d, tree, c, entry = unpack(keys)
  if why ~= 'complete' then return condemn(why, group_id, keys, token, claimed) end
  if not complete(ordered, j, t, s) or not claim(c, d, entry, token, claimed, false, returns) then return false end
  keep({j, t, s, d}, tree, life)
  return true
end

-- A key of the wrong type must fail here, before anything was counted.
for i = 2, #KEYS, 7 do
  redis.call(ordered and 'ZCARD' or 'LLEN', KEYS[i])
  redis.call('STRLEN', KEYS[i + 1])
  redis.call('STRLEN', KEYS[i + 2])
  redis.call('SCARD', KEYS[i + 3])
  redis.call('STRLEN', KEYS[i + 5])
end

local answers = {}
for n = 0, (#KEYS - 1) / 7 - 1 do
  local keys = {unpack(KEYS, 7 * n + 2, 7 * n + 8)}
  local group_id, id, result, position, life, claimed, token, returns, body, why = unpack(ARGV, 10 * n + 2, 10 * n + 11)
  local mine = false
  if redis.call('GET', keys[6]) ~= 'done' then
    if why == '' then
      mine = count(keys, group_id, id, result, position, tonumber(life), claimed, token, returns, body)
    else
      mine = rescue(keys, group_id, why, tonumber(life), claimed, token, returns)
    end
  end
  answers[#answers + 1] = mine and 1 or 0
end
return table.concat(answers)
