-- Hands a batch of a tenant's usage events to one consumer of a group, and counts those that were trimmed unread.
--
-- KEYS[1]  the stream of events              KEYS[2]  the hash of how far each group has come
-- ARGV     group, consumer, how many at most, again, claim after (ms)
--   again  "1": what this consumer was given before and never acknowledged
--          "0": what another consumer has kept for longer than "claim after", then what nobody was given yet
-- Reply    {lost, waiting, entries}
--   lost     events that this call found trimmed before anybody acknowledged them
--   waiting  events that the group was not given yet, after this call
--   entries  as of XREADGROUP: {{id, {field, value, ...}}, ...}
-- Example  {0, 3, {{"1763800000000-0", {"id", "a1", "key", "ci", ...}}}}
--
-- The position of a group is how many events it was given or has lost, counted from the first that ever was; the
-- stream is only trimmed from its old end, so that "entries-added" - "length" is the position of what is gone.
-- The server's own entries-read and lag are not used: trimming makes them wrong.

local stream, positions = KEYS[1], KEYS[2]
local group, consumer, count = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function record(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

if redis.call('EXISTS', stream) == 0 then return {0, 0, {}} end

local info = record(redis.call('XINFO', 'STREAM', stream))
local added = info['entries-added']
local trimmed = added - info['length']

local known = false
for _, each in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if record(each)['name'] == group then known = true end
end
local position = known and tonumber(redis.call('HGET', positions, group .. '|position')) or trimmed
if not known then redis.call('XGROUP', 'CREATE', stream, group, '0') end
if position > added then position = trimmed end  -- another stream than the one that was counted

local lost = math.max(trimmed - position, 0)
position = math.max(position, trimmed)

local entries = {}

local function take(found)
  local gone = {}
  for _, entry in ipairs(found) do
    if entry[2] then entries[#entries + 1] = entry else gone[#gone + 1] = entry[1] end
  end
  if #gone > 0 then
    lost = lost + #gone
    redis.call('XACK', stream, group, unpack(gone))
  end
end

local function read(from, most)
  local reply = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', most, 'STREAMS', stream, from)
  return reply and reply[1][2] or {}
end

if ARGV[4] == '1' then
  take(read('0-0', count))
else
  local claimed = redis.call('XAUTOCLAIM', stream, group, consumer, ARGV[5], '0-0', 'COUNT', count)
  take(claimed[2])
  lost = lost + #claimed[3]  -- trimmed while they were another's
  if #entries < count then
    local fresh = read('>', count - #entries)
    position = position + #fresh
    take(fresh)
  end
end

redis.call('HSET', positions, group .. '|position', position)
if lost > 0 then redis.call('HINCRBY', positions, group .. '|lost', lost) end
local lives_ms = redis.call('PTTL', stream)
if lives_ms > 0 then redis.call('PEXPIRE', positions, lives_ms) end
return {lost, added - position, entries}
