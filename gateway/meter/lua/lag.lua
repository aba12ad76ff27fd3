-- How far the export of a tenant's usage events is behind, and what it lost since this was last asked.
--
-- KEYS[1]  the stream of events              KEYS[2]  the hash of how far each group has come
-- Reply    {lag, lost}
--   lag    events that the slowest group has yet to be given or to acknowledge; 0 without a group
--   lost   events lost to all groups that no reply has said before
-- Example  {120, 0}
--
-- What a group has lost is written down here too, so that each loss is told once, whoever finds it. Positions are
-- those of export.lua; a group that it did not make is not looked at.

local stream, positions = KEYS[1], KEYS[2]

local function record(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

if redis.call('EXISTS', positions) == 0 or redis.call('EXISTS', stream) == 0 then return {0, 0} end

local info = record(redis.call('XINFO', 'STREAM', stream))
local added = info['entries-added']
local trimmed = added - info['length']

local lag, news = 0, 0
for _, each in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = record(each)
  local name = group['name']
  local state = redis.call('HMGET', positions, name .. '|position', name .. '|lost', name .. '|told')
  local position = tonumber(state[1])
  if position and position <= added then
    local lost, told = tonumber(state[2] or 0), tonumber(state[3] or 0)
    if trimmed > position then
      lost = lost + trimmed - position
      position = trimmed
    end
    if lost > told then
      redis.call('HSET', positions, name .. '|position', position, name .. '|lost', lost, name .. '|told', lost)
      news = news + lost - told
    end
    lag = math.max(lag, added - position + group['pending'])
  end
end

local lives_ms = redis.call('PTTL', stream)
if lives_ms > 0 then redis.call('PEXPIRE', positions, lives_ms) end
return {lag, news}
