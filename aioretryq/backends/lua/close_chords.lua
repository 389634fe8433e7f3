-- Forgets chords whose bodies were sent, or were told that they failed.
-- KEYS  for each chord: results (.j), parts added (.t), size (.s), who was counted (.d), claim (.c)
-- ARGV  seconds for which a chord is remembered as done, then for each chord: token, 1 if it has failed
for n = 0, #KEYS / 5 - 1 do
  local j, t, s, d, c = unpack(KEYS, 5 * n + 1, 5 * n + 5)
  local token, failed = ARGV[2 * n + 2], ARGV[2 * n + 3]
  if redis.call('GET', c) == token then
    if failed == '1' then
      -- Without its size it is never complete again; what its parts returned stays for whoever wonders.
      redis.call('DEL', s)
    else
      redis.call('DEL', j, t, s, d)
      redis.call('SET', c, 'done', 'EX', ARGV[1])
    end
  end
end
return 'OK'
