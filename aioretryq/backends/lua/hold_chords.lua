-- Renews the right to send the bodies of chords, or takes it again where it has ended and nobody else has it.
-- KEYS  for each chord: claim (.c), size (.s)
-- ARGV  milliseconds, then a token for each chord
-- Returns a text: 1 for each that is held now, else 0
local answers = {}
for n = 1, #KEYS / 2 do
  local c, token = KEYS[2 * n - 1], ARGV[n + 1]
  local holder = redis.call('GET', c)
  local mine = holder == token or (not holder and redis.call('EXISTS', KEYS[2 * n]) == 1)
  if mine then redis.call('SET', c, token, 'PX', ARGV[1]) end
  answers[n] = mine and 1 or 0
end
return table.concat(answers)
