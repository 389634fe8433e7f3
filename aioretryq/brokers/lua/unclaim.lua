-- Makes claims void whose replies were lost, should they be carried out yet, and takes back what they took.
-- KEYS  unacked, unacked_index, leases, void, then for each queue its list of bucket 0, 3, 6 and 9
-- ARGV  number below which claims are void, tag prefix, how many claims, for each the numbers before its first tag
--       and of its last one; then for each queue what kombu appends to its messages in unacked
-- Returns how many messages are back, unmarked and at the front: nobody has seen them
local claims = tonumber(ARGV[3])
local before = 3 + 2 * claims -- arguments before those of the queues
local count = 0

-- A key of the wrong type must be found before anything was taken out. That of a queue is its own matter: what came
-- from there stays under its lease.
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
local usable = {}
for i = 5, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  usable[i] = kind == 'list' or kind == 'none'
end

local function list_of(value, step)
  for q = 1, #ARGV - before do
    local suffix = ARGV[before + q]
    if string.sub(value, -#suffix) == suffix then
      local key = 4 * q + 1 + step
      return usable[key] and KEYS[key], string.sub(value, 2, -#suffix - 1)
    end
  end
end

local function put_back(tag, step)
  local value = redis.call('HGET', KEYS[1], tag)
  local list, body = nil, nil
  if value then list, body = list_of(value, step) end
  if not list then return end
  -- A large message is under a key of its own (see claim.lua). If that is evicted, or may not be read, the entry stays
  -- under its lease: recovery tells of it.
  local moved = body == 'null' and string.find(tag, ':large:', 1, true)
  if moved and type(redis.pcall('LMOVE', KEYS[3] .. '.' .. tag, list, 'RIGHT', 'RIGHT')) ~= 'string' then return end
  redis.call('HDEL', KEYS[1], tag)
  redis.call('ZREM', KEYS[2], tag)
  redis.call('ZREM', KEYS[3], tag)
  if not moved then redis.call('RPUSH', list, body) end
  count = count + 1
end

-- Removes nothing: see extend.lua.
redis.call('ZREM', KEYS[3], '')
local void = math.max(tonumber(redis.call('GET', KEYS[4]) or '') or 0, ARGV[1])
redis.call('SET', KEYS[4], string.format('%.0f', void), 'PX', 600000)

-- From the youngest to the oldest, for each goes in front of the one before.
for claim = claims, 1, -1 do
  for number = tonumber(ARGV[3 + 2 * claim]), ARGV[2 + 2 * claim] + 1, -1 do
    for step = 0, 3 do
      local rest = string.format('%012d:%d', number, step * 3)
      put_back(ARGV[2] .. rest, step)
      put_back(ARGV[2] .. string.gsub(rest, ':', ':large:'), step)
    end
  end
end
return count
