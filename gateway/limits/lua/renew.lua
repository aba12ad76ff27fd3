-- Prolongs the slots of calls that still run, many calls of one tenant at once.
--
-- KEYS  1 levels, 2... the slots of each limit, then the record of each lease
-- ARGV  1 {slot_ms, number of slot keys, {{lease id, {places among the slot keys}}, ...}}
-- Reply {epoch, now_ms, {places of leases that have ended}, expired slots}
--
-- A slot that has expired or was lost is taken again, be the limit full or not: the call holds it in fact. That of a
-- lease that was settled or voided is not.

local args = unpacked(ARGV[1])
local slot_ms, keys, leases = args[1], args[2], args[3]

local header = call('HGET', KEYS[1], 'e')
local ended, expired = {}, 0

for place = 1, #leases do
  local id, held = leases[place][1], leases[place][2]
  local asked, over = false, false
  for position = 1, #held do
    local slots = KEYS[1 + held[position]]
    if not over and call('ZADD', slots, 'XX', 'CH', now + slot_ms, id) == 0 then
      if not asked then
        local record = call('GET', KEYS[1 + keys + place])
        asked, over = true, record == 's' or record == 'v'
      end
      if over then
        ended[#ended + 1] = place
      else
        call('ZADD', slots, now + slot_ms, id)
      end
    end
  end
end
for place = 2, 1 + keys do
  expired = expired + call('ZREMRANGEBYSCORE', KEYS[place], '-inf', now)
  call('PEXPIRE', KEYS[place], slot_ms * 2)
end
return pack({header and unpacked(header) or '', now, ended, expired})
