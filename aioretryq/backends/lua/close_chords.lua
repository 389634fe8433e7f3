-- Forgets chords whose bodies were sent, or were told that they failed.
-- KEYS  index, then for each chord: results (.j), parts added (.t), size (.s), who was counted (.d), claim (.c),
--       entry (.r)
-- ARGV  seconds for which a chord is remembered as done, then for each chord: group id, token, 1 if it has failed
for n = 0, (#KEYS - 1) / 6 - 1 do
  local j, t, s, d, c, entry = unpack(KEYS, 6 * n + 2, 6 * n + 7)
  local group_id, token, failed = unpack(ARGV, 3 * n + 2, 3 * n + 4)
  local holder = redis.call('GET', c)
  -- Late, but it has sent the body: nobody else is to do so.
  if holder == token or (not holder and redis.call('HGET', entry, 'sender') == token) then
    redis.call('DEL', entry)
    redis.call('ZREM', KEYS[1], group_id)
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
