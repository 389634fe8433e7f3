-- More parts return to chords, each counted once.
-- KEYS  for each: parts added (.t), size (.s), who was counted (.d), claim (.c)
-- ARGV  for each: task id, seconds to live where nothing else is known of the chord (0 for ever)

-- A key of the wrong type must fail here, before anything was added.
for i = 1, #KEYS, 4 do
  redis.call('STRLEN', KEYS[i])
  redis.call('SCARD', KEYS[i + 2])
  redis.call('STRLEN', KEYS[i + 3])
end

-- A key that was just made lives as long as the chord's size.
local function keep(key, s, life)
  if redis.call('PTTL', key) ~= -1 then return end
  local left = redis.call('PTTL', s)
  if left > 0 then
    redis.call('PEXPIRE', key, left)
  elseif left == -2 and life > 0 then
    redis.call('EXPIRE', key, life)
  end
end

for n = 0, #KEYS / 4 - 1 do
  local t, s, d, c = unpack(KEYS, 4 * n + 1, 4 * n + 4)
  local id, life = ARGV[2 * n + 1], tonumber(ARGV[2 * n + 2])
  if redis.call('GET', c) ~= 'done' and redis.call('SADD', d, 'added:' .. id) == 1 then
    redis.call('INCR', t)
    keep(t, s, life)
    keep(d, s, life)
  end
end
return 'OK'
