-- Remembers what parts of chords returned, each once, and gives the right to send the body of those that are complete.
-- KEYS  for each part: results (.j), parts added (.t), size (.s), who was counted (.d), tree of the header, claim (.c)
-- ARGV  1 where results are ordered (a sorted set, else a list); then for each part: task id, what it returned, index or
--       '+inf', seconds to live (0 for ever), milliseconds of a claim, token, 1 if the message comes back when its worker
--       dies
-- Returns a text: 1 for each part with which the body is to be sent, else 0
--
-- All but the notes about senders is also what Celery's workers do with these keys.
local ordered = ARGV[1] == '1'

local function remember(j, d, member, index, result)
  if redis.call('SISMEMBER', d, member) == 1 then return false end
  if ordered then
    redis.call('ZADD', j, index, result)
  else
    redis.call('RPUSH', j, result)
  end
  redis.call('SADD', d, member)
  return true
end

local function keep(keys, tree, life)
  if life <= 0 then return end
  for _, key in ipairs(keys) do redis.call('EXPIRE', key, life) end
  local left = redis.call('TTL', tree)
  if left >= 0 and left < life then redis.call('EXPIRE', tree, life) end
end

local function complete(j, t, s)
  local size = redis.call('GET', s)
  local count = redis.call(ordered and 'ZCARD' or 'LLEN', j)
  return size and count == tonumber(size) + tonumber(redis.call('GET', t) or 0)
end

-- Whether the token has the claim from now on. A sender whose message comes back is waited for by all parts that were
-- counted before it died: its body may have been sent already.
local function claim(c, d, token, life, new, returns)
  local holder, mine = redis.call('GET', c), 'sender:' .. token
  if holder and holder ~= token then return false end
  if not holder and not new and redis.call('SISMEMBER', d, 'sender') == 1 and redis.call('SISMEMBER', d, mine) == 0 then
    return false
  end
  redis.call('SET', c, token, 'PX', life)
  if returns == '1' then redis.call('SADD', d, 'sender', mine) end
  return true
end

-- A key of the wrong type must fail here, before anything was counted.
for i = 1, #KEYS, 6 do
  redis.call(ordered and 'ZCARD' or 'LLEN', KEYS[i])
  redis.call('STRLEN', KEYS[i + 1])
  redis.call('STRLEN', KEYS[i + 2])
  redis.call('SCARD', KEYS[i + 3])
  redis.call('STRLEN', KEYS[i + 5])
end

local answers = {}
for n = 0, #KEYS / 6 - 1 do
  local j, t, s, d, tree, c = unpack(KEYS, 6 * n + 1, 6 * n + 6)
  local id, result, index, life, claimed, token, returns = unpack(ARGV, 7 * n + 2, 7 * n + 8)
  local mine = false
  if redis.call('GET', c) ~= 'done' then
    local new = remember(j, d, id .. ':' .. index, index, result)
    keep({j, t, s, d}, tree, tonumber(life))
    mine = complete(j, t, s) and claim(c, d, token, claimed, new, returns)
    if mine then keep({d}, tree, tonumber(life)) end
  end
  answers[#answers + 1] = mine and 1 or 0
end
return table.concat(answers)
