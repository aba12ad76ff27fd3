
local function bounded(used)
  return used < 0 and 0 or used > COUNT_MAX and COUNT_MAX or used
end

-- The state of a limit with `difference` added to what was reserved from exactly `reserved`; nil where nothing changes:
-- that window is not kept any more, or the limit was reset since.
local function corrected(limit, raw, reserved, difference)
  local kind = limit[KIND]
  if difference == 0 or kind == CONCURRENCY then
    return nil
  elseif kind == RATE then
    local capacity = limit[CAPACITY]
    local used, at, rest, hidden = bucket_at(raw, limit[AMOUNT], capacity, limit[PERIOD_MS])
    return pack_bucket(used + difference, at, rest, capacity, hidden)
  elseif not raw then
    return nil
  end
  local window, used, other, other_used = unpacked(raw)
  if window == reserved then
    return pack(window, bounded(used + difference), other, other_used)
  elseif other == reserved then
    return pack(window, used, other, bounded(other_used + difference))
  end
  return nil
end
