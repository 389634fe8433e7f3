-- Finds the leases that have ended; not in a sweep that comes late: then nobody could renew either, and who still
-- lives must have a lease's time to do so.
-- KEYS  leases, sweep (last: when the last sweep was; quiet_until: until when none takes anything back; expires: until
--       when this key and that of the workers are kept), workers (see leave.lua)
-- ARGV  lease, how many tags at most, then the members of workers by which this sweep tells who lives
-- Returns tags, that of the lease that ended first first; nil while it is quiet
-- Idle workers do hardly anything else: it is to cost few commands.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local lease = tonumber(ARGV[1])
local state = redis.call('HMGET', KEYS[2], 'last', 'quiet_until', 'expires')
local last, quiet, expires = tonumber(state[1] or ''), tonumber(state[2] or '') or 0, tonumber(state[3] or '') or 0

if last and last > now + lease then last, quiet, expires = nil, 0, 0 end -- the clock was set back
if not last or now - last > lease / 2 then quiet = math.max(quiet, now + lease) end
-- Not each time. When the key has expired, the next sweep is late anyway.
local keep = expires < now + 2 * lease
if keep then expires = now + 8 * lease end

local function note()
  return redis.pcall('HSET', KEYS[2], 'last', string.format('%.6f', now), 'quiet_until', string.format('%.6f', quiet),
    'expires', string.format('%.6f', expires))
end
local noted = note()
if type(noted) == 'table' and noted.err then
  -- A server out of memory refuses scripts that begin by adding, and recovery must go on there. This removes nothing.
  redis.call('ZREM', KEYS[1], '')
  noted = note()
  if type(noted) == 'table' and noted.err then return noted end
end
local new = 0
if #ARGV > 2 then
  for from = 3, #ARGV, 1000 do -- unpack takes some thousands at most
    local living = {}
    for i = from, math.min(from + 999, #ARGV) do
      living[#living + 1], living[#living + 2] = string.format('%.6f', now), ARGV[i]
    end
    new = new + redis.call('ZADD', KEYS[3], unpack(living))
  end
end
if keep or new > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - lease)
  redis.call('PEXPIRE', KEYS[2], math.ceil(1000 * (expires - now)))
  redis.call('PEXPIRE', KEYS[3], math.ceil(1000 * (expires - now)))
end
if quiet > now then return false end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
