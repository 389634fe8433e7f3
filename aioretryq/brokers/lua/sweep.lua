-- Finds the leases that have ended; not in a sweep that comes late: then nobody could renew either, and who still
-- lives must have a lease's time to do so.
-- KEYS  leases, sweep (last: when the last sweep was; quiet_until: until when none takes anything back),
--       workers (see leave.lua)
-- ARGV  lease, how many tags at most, then the members of workers by which this sweep tells who lives
-- Returns tags, that of the lease that ended first first; nil while it is quiet
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local lease = tonumber(ARGV[1])
local state = redis.call('HMGET', KEYS[2], 'last', 'quiet_until')
local last, quiet = tonumber(state[1] or ''), tonumber(state[2] or '') or 0

if last and last > now + lease then last, quiet = nil, 0 end -- the clock was set back
if not last or now - last > lease / 2 then quiet = math.max(quiet, now + lease) end
-- Removes nothing. But a server out of memory refuses scripts that begin by adding, and recovery must go on there.
redis.call('ZREM', KEYS[1], '')
redis.call('HSET', KEYS[2], 'last', string.format('%.6f', now), 'quiet_until', string.format('%.6f', quiet))
-- When it has expired, the next sweep is late anyway.
redis.call('PEXPIRE', KEYS[2], math.ceil(2000 * math.max(lease, quiet - now)))
if #ARGV > 2 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - lease)
  for i = 3, #ARGV do redis.call('ZADD', KEYS[3], string.format('%.6f', now), ARGV[i]) end
  redis.call('PEXPIRE', KEYS[3], math.ceil(2000 * lease))
end
if quiet > now then return false end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
