-- Renews the right to send the bodies of chords, or takes it again where it has ended and nobody else has it.
-- KEYS  for each chord: claim (.c), size (.s), entry (.r)
-- ARGV  milliseconds, then a token for each chord
-- Returns a text: 1 for each that is held now, else 0
-- include chord_watch.lua
local function may_take(s, entry, token)
  return redis.call('EXISTS', s) == 1 or redis.call('HGET', entry, 'verdict') == token
end

local answers = {}
for n = 1, #KEYS / 3 do
  local c, s, entry = unpack(KEYS, 3 * n - 2, 3 * n)
  local token, holder = ARGV[n + 1], redis.call('GET', c)
  local mine = holder == token or (not holder and may_take(s, entry, token))
  if mine then
    redis.call('SET', c, token, 'PX', ARGV[1])
    note_sender(entry, token)
  end
  answers[n] = mine and 1 or 0
end
return table.concat(answers)
