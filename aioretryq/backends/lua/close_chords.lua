-- Forgets chords whose bodies were sent, or were told that they failed.
-- KEYS  index, then for each chord: results (.j), parts added (.t), size (.s), who was counted (.d), tree of the header,
--       claim (.c), entry (.r)
-- ARGV  for each chord: group id, token
-- include chord_parts.lua
for n = 0, (#KEYS - 1) / 7 - 1 do
  local keys = {unpack(KEYS, 7 * n + 2, 7 * n + 8)}
  local group_id, token = unpack(ARGV, 2 * n + 1, 2 * n + 2)
  local holder = redis.call('GET', keys[6])
  -- Late, but it has sent the body: nobody else is to do so.
  if holder == token or (not holder and redis.call('HGET', keys[7], 'sender') == token) then
    mark_done(keys[6])
    forget(redis.call, keys, KEYS[1], group_id)
  end
end
return 'OK'
