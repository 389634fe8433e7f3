-- Renews the right to send the bodies of chords, or takes it again where it has ended and nobody else has it.
-- KEYS  for each chord: claim (.c), size (.s), entry (.r)
-- ARGV  milliseconds, then a token for each chord
-- Returns a text: 1 for each that is held now, 0 where somebody else has it or it is done, 2 where nothing is known of it
-- any more
-- include chord_watch.lua
-- Nobody has it.
local function may_take(s, entry, token)
  local verdict = redis.call('HGET', entry, 'verdict')
  if verdict then return verdict == token and '1' or '0' end
  return redis.call('EXISTS', s) == 1 and '1' or '2'
end

local answers = {}
for n = 1, #KEYS / 3 do
  local c, s, entry = unpack(KEYS, 3 * n - 2, 3 * n)
  local token, holder = ARGV[n + 1], redis.call('GET', c)
  local answer = holder == token and '1' or holder and '0' or may_take(s, entry, token)
  if answer == '1' then
    redis.call('SET', c, token, 'PX', ARGV[1])
    note_sender(entry, token)
  end
  answers[n] = answer
end
return table.concat(answers)
