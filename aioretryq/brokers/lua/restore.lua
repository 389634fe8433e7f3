-- Puts claimed messages back to the front of their lists: the last one given is the next to be taken.
-- KEYS  unacked, unacked_index, leases, sweep, then lists
-- ARGV  the lease, to leave those alone that have not ended, or '' for whatever is held; then for each message:
--       tag, number of its list (0: the message is lost, only its entry is there and goes), message
-- Returns how many were put back, or went
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local count = 0

-- A key of the wrong type must be found before anything was taken out. That of a queue is its own matter: what belongs
-- there stays under its lease.
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
local usable = {[0] = true}
for i = 5, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  usable[i - 4] = kind == 'list' or kind == 'none'
end

if ARGV[1] ~= '' then
  -- The sweep that found these may lie in the past, before the server froze or the machine slept: see sweep.lua.
  local state = redis.call('HMGET', KEYS[4], 'last', 'quiet_until')
  if not state[1] or now - state[1] > ARGV[1] / 2 or tonumber(state[2]) > now then return 0 end
end

for i = 2, #ARGV, 3 do
  local tag = ARGV[i]
  local ends = ARGV[1] ~= '' and redis.call('ZSCORE', KEYS[3], tag)
  if usable[tonumber(ARGV[i + 1])] and not (ends and tonumber(ends) > now) then
    redis.call('ZREM', KEYS[2], tag)
    redis.call('ZREM', KEYS[3], tag)
    if redis.call('HDEL', KEYS[1], tag) == 1 then
      if string.find(tag, ':large:', 1, true) then redis.pcall('UNLINK', KEYS[3] .. '.' .. tag) end -- see claim.lua
      if ARGV[i + 1] ~= '0' then redis.call('RPUSH', KEYS[4 + ARGV[i + 1]], ARGV[i + 2]) end
      count = count + 1
    end
  end
end
return count
