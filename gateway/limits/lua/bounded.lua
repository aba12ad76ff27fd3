
local function bounded(used)
  return used < 0 and 0 or used > COUNT_MAX and COUNT_MAX or used
end
