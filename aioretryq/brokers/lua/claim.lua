-- Takes messages under a lease: admits what is due, pops in order, notes each in kombu's unacked.
-- KEYS  unacked, unacked_index, leases, revocations, revoked, void, each queue's schedule,
--       each queue's list of bucket 0, then of bucket 3, 6 and 9
-- ARGV  limit, lease, lead of the index score, tag prefix, number of the last tag, number of the last
--       revocation seen, then for each queue what kombu appends to its messages in unacked
-- Returns for each queue {seconds until something parked is due ('' for never), its score, how many members that are
--         none of ours have a lower one},
--         {revoked id, ...}, {queue, bucket, how many, ...}, {message, ...},
--         the number of the last revocation read ('' for none), whether there may be more of them, or more messages
--         than fit into one reply
-- The tag of the n-th message is made of the prefix, its number (12 digits, so that tags sort by age) and bucket; that of
-- a large one tells so. A large message gets a key of its own, as the only value of a list, and its entry of unacked has
-- null in its place: making a string in Lua takes 1.4 us a kilobyte. Only extend.lua completes the entry. That key is
-- none of KEYS, for the tag is made here: a user may lack the right to it, and then takes nothing.
-- Most claims of an idle worker find nothing: those are to cost few commands.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local unacked, index, leases = KEYS[1], KEYS[2], KEYS[3]
local limit = tonumber(ARGV[1])
local queues = #ARGV - 6
local lists = 6 + queues
local due, revoked, runs, taken, offers = {}, {}, {}, {}, {}
local bytes = 1048576 -- what a claim stops after: its reply has to be read within a deadline

-- Nobody reads the reply of this claim any more: see unclaim.lua. (Should it be another that was under way at the
-- time, it comes again at once.)
local void = redis.call('GET', KEYS[6])
if void and tonumber(ARGV[5]) < tonumber(void) then
  for q = 1, queues do due[q] = {'0', '', 0} end
  return {due, revoked, runs, taken, '', 0}
end

-- In pages, for there may be very many; until the last one is read nothing is taken, for it may be revoked.
local most = 1000
local fresh = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[6], '+inf', 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #fresh, 2 do
  local expiry = redis.call('ZSCORE', KEYS[5], fresh[i])
  if expiry and tonumber(expiry) > now then revoked[#revoked + 1] = fresh[i] end
end
local unread = #fresh == 2 * most
if unread then limit = 0 end

local function due_at(score, before)
  return score and {string.format('%.6f', score - now), score, before} or {'', '', before}
end

local admits, first = {}, nil
for q = 1, queues do
  first = redis.call('ZRANGE', KEYS[6 + q], 0, 0, 'WITHSCORES')[2]
  due[q] = due_at(first, 0)
  if first and tonumber(first) <= now then admits[#admits + 1] = q end
end
local reply = {due, revoked, runs, taken, fresh[#fresh] or '', unread and 1 or 0}

local function nothing_waits()
  for i = lists + 1, #KEYS, 4000 do -- unpack takes some thousands at most
    if redis.call('EXISTS', unpack(KEYS, i, math.min(i + 3999, #KEYS))) > 0 then return false end
  end
  return true
end
if queues == 0 or (#admits == 0 and nothing_waits()) then return reply end

-- What is of the wrong type or not allowed must fail here, before anything was moved. None of these changes anything;
-- the first one removes, for a server out of memory lets a script go on that began by removing.
redis.call('ZREM', leases, '')
redis.call('ZADD', index, 'XX', 'GT', '-inf', '')
redis.call('HLEN', unacked)
local waiting = {}
for i = lists + 1, #KEYS do waiting[i] = redis.call('LLEN', KEYS[i]) end

-- Of a schedule's member: the number of its list, its message, whether it is offered; nothing if it is none of ours.
local function read(member, q)
  local offered, bucket, length, start = string.match(member, '^(%+?)([0369]):(%d+):()')
  if offered and start + length <= #member + 1 then
    return lists + bucket / 3 * queues + q, string.sub(member, start + length), offered ~= ''
  end
end

for _, q in ipairs(admits) do
  local schedule, stay = KEYS[6 + q], 0
  repeat -- until a page has something of ours: what is not must not hide it
    local page, found = redis.call('ZRANGEBYSCORE', schedule, '-inf', now, 'LIMIT', stay, 100), false
    for _, member in ipairs(page) do
      local list, body, offered = read(member, q)
      found = found or list
      if list and not offered then
        redis.call('LPUSH', KEYS[list], body)
        redis.call('ZREM', schedule, member)
        waiting[list] = waiting[list] + 1
      else
        stay = stay + 1
        offers[#offers + 1] = list and {schedule, member, KEYS[list], body}
      end
    end
  until found or #page < 100
  first = redis.call('ZRANGE', schedule, stay, stay, 'WITHSCORES')[2]
  due[q] = due_at(first, stay > 0 and redis.call('ZCOUNT', schedule, '-inf', first and '(' .. first or '+inf') or 0)
end

-- Many in one command: at 500 messages that takes a fifth off what a claim costs the server.
local function note(entries, ends, scores, larges)
  for i = 1, #larges, 2 do redis.call('RPUSH', larges[i], larges[i + 1]) end
  redis.call('HSET', unacked, unpack(entries))
  redis.call('ZADD', leases, unpack(ends))
  if #scores > 0 then redis.call('ZADD', index, unpack(scores)) end
end

-- What is refused leaves nothing behind: keys that no entry names would stay for good.
local function note_or_fail(entries, ends, scores, larges)
  local noted, refusal = pcall(note, entries, ends, scores, larges)
  if noted then return end
  for i = 1, #larges, 2 do redis.pcall('UNLINK', larges[i]) end
  error(refusal, 0)
end

local ends, score = string.format('%.6f', now + ARGV[2]), string.format('%.6f', now + ARGV[3])
local page = 50 -- not all at once: unpack takes some thousands at most

-- The last ones of a list: no more than the first of them lets expect to be taken. A string that gets into Lua is hashed
-- to its last byte (1.4 us a kilobyte), whatever becomes of it.
local function newest(list, most)
  local last = redis.call('LRANGE', list, -1, -1)
  local count = math.min(page, most, math.floor(bytes / math.max(#last[1], 1)) + 1)
  if count > 1 then
    local before = redis.call('LRANGE', list, -count, -2)
    before[#before + 1] = last[1]
    return before
  end
  return last
end

for list = lists + 1, #KEYS do
  local step, q, before = math.floor((list - lists - 1) / queues), (list - lists - 1) % queues + 1, #taken
  while waiting[list] > 0 and #taken < limit and bytes >= 0 do
    if #taken == before then redis.call('LTRIM', KEYS[list], 0, -1) end -- removes nothing: it must be allowed
    local last = newest(KEYS[list], limit - #taken)
    local entries, leased, indexed, larges, count = {}, {}, {}, {}, 0
    while count < #last and bytes >= 0 do
      local body = last[#last - count]
      local large = #body >= 32768
      local tag = string.format('%s%012d%s%d', ARGV[4], ARGV[5] + #taken + 1, large and ':large:' or ':', step * 3)
      entries[#entries + 1], entries[#entries + 2] = tag, '[' .. (large and 'null' or body) .. ARGV[6 + q]
      leased[#leased + 1], leased[#leased + 2] = ends, tag
      if large then larges[#larges + 1], larges[#larges + 2] = leases .. '.' .. tag, body end
      -- kombu's sweep parses what the index names as JSON, and fails on anything else: leases alone cover that.
      if string.byte(body) == 123 and not large then indexed[#indexed + 1], indexed[#indexed + 2] = score, tag end
      taken[#taken + 1] = body
      count, bytes = count + 1, bytes - #body
    end
    note_or_fail(entries, leased, indexed, larges)
    redis.call('LTRIM', KEYS[list], 0, -count - 1) -- only now: what cannot be noted stays where it is
    waiting[list] = waiting[list] - count
  end
  if waiting[list] > 0 and bytes < 0 and #taken < limit then reply[6] = 1 end
  if #taken > before then
    for _, part in ipairs({q, step * 3, #taken - before}) do runs[#runs + 1] = part end
  end
end
-- Only now: others that wait for these lists, Celery workers perhaps, get them before our next claim.
for _, offer in ipairs(offers) do
  redis.call('LPUSH', offer[3], offer[4])
  redis.call('ZREM', offer[1], offer[2])
end
return reply
